"""Words of texts whose script puts no spaces between them, found by another library.

Each segmenter is an optional dependency and is loaded once per process. It decides the words only; what
the model reads does not change, except for a `word` tokenizer (`TextAligner`).
"""

import re
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NamedTuple, get_args

from preprocess.errors import UserError

SegmenterName = Literal["jieba", "fugashi", "pythainlp"]

SEGMENTERS: tuple[SegmenterName, ...] = get_args(SegmenterName)
"""Names of the segmenters: jieba for Chinese, fugashi (MeCab) for Japanese, PyThaiNLP for Thai."""

Cut = Callable[[str], Iterable[str]]
"""Returns the words of a text in order; it may leave out whitespace."""

PACKAGES = {"fugashi": "fugashi unidic-lite", "pythainlp": "pythainlp"}
"""What to install for a segmenter; jieba is in an extra of biloom."""

LONGEST_WORDS = {
    **dict.fromkeys(("Han", "Hiragana", "Katakana", "Bopomofo"), 4),
    **dict.fromkeys(("Thai", "Lao", "Khmer", "Myanmar", "Tibetan"), 9),
}
"""Scripts without spaces between words, each with the largest plausible mean length of words.

The mean length of the words that jieba finds is 1.8 characters (400,000 characters of Wikipedia)."""


class SegmenterError(UserError):
    """A segmenter that is unknown, or cannot be loaded."""


class Span(NamedTuple):
    """The characters [start, end) of a word in a text."""

    start: int
    end: int


def word_spans(text: str, segmenter: str | None = None) -> list[Span]:
    """Return the words of a text in order; together they have all its characters but whitespace.

    Args:
        text: the text.
        segmenter: one of `SEGMENTERS`. None means that words are separated by whitespace.

    Raises:
        SegmenterError: the segmenter is unknown, or cannot be loaded.
    """
    if segmenter is None:
        return [Span(*match.span()) for match in re.finditer(r"\S+", text)]
    return list(_located(text, _load(segmenter)(text)))


def _located(text: str, words: Iterable[str]) -> Iterable[Span]:
    """Yield the place of each word, and what lies between words as words of their own.

    A segmenter may return whitespace as a word, or a word with whitespace in it.
    """
    place = 0
    for word in words:
        start = text.find(word, place) if word else -1
        if start >= 0:
            yield from _bare(text, place, start)
            yield from _bare(text, start, place := start + len(word))
    yield from _bare(text, place, len(text))


def _bare(text: str, start: int, end: int) -> Iterable[Span]:
    """Yield the parts of ``text[start:end]`` between whitespace."""
    for match in re.finditer(r"\S+", text[start:end]):
        yield Span(start + match.start(), start + match.end())


def check_segmenter(name: str) -> None:
    """Raise SegmenterError if a segmenter is unknown or is not installed; does not load it."""
    if name not in SEGMENTERS:
        raise SegmenterError(f"segmenter: {name!r} is unknown; use {', '.join(SEGMENTERS)}")
    segmenter_version(name)


def segmenter_version(name: str) -> str:
    """Return the name and version of a segmenter, such as "jieba 0.42.1".

    Another version may find other words.

    Raises:
        SegmenterError: it is not installed.
    """
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError as error:
        raise _missing(name) from error


def _missing(name: str) -> SegmenterError:
    packages = PACKAGES.get(name, "'biloom[segmenters]'")
    return SegmenterError(
        f"segmenter: {name} is not installed; run pip install {packages}, or pass each text as a "
        "list of words"
    )


@cache
def _load(name: str) -> Cut:
    check_segmenter(name)
    try:
        # On import, jieba warns of its own regular expressions and of pkg_resources.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cut: Cut = {"jieba": _jieba, "fugashi": _fugashi, "pythainlp": _pythainlp}[name]()
    except ImportError as error:
        raise _missing(name) from error
    except (RuntimeError, OSError) as error:
        # fugashi without a dictionary.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise SegmenterError(
            f"segmenter: {name} cannot be loaded ({reason}); run pip install "
            f"{PACKAGES.get(name, name)}"
        ) from error
    return cut


def _jieba() -> Cut:
    jieba: Any = import_module("jieba")
    # Not the module's own tokenizer, to which a program may add words, and not its `initialize`, which
    # logs to stderr and reads a cache of marshalled data in the shared folder for temporary files.
    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    cut: Cut = tokenizer.cut
    return cut


def _fugashi() -> Cut:
    tagger = import_module("fugashi").Tagger("-Owakati")
    return lambda text: [word.surface for word in tagger(text)]


def _pythainlp() -> Cut:
    tokenize = import_module("pythainlp.tokenize").word_tokenize
    return lambda text: tokenize(text, engine="newmm")


@cache
def _letters() -> dict[str, re.Pattern[str]]:
    """Return a pattern of a letter of each script in `LONGEST_WORDS`, and, under "", of any of them."""
    # Imports NumPy, which a config is read without.
    from preprocess.text.scripts import script_ranges

    classes = {
        script: "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in script_ranges(script))
        for script in LONGEST_WORDS
    }
    classes[""] = "".join(classes.values())
    return {script: re.compile(f"[{letters}]") for script, letters in classes.items()}


def is_unspaced(text: str) -> bool:
    """Return True if a text has a letter of a script of `LONGEST_WORDS`."""
    return not text.isascii() and _letters()[""].search(text) is not None


def mostly_unspaced(text: str) -> bool:
    """Return True if most characters but spaces are letters of the scripts of `LONGEST_WORDS`."""
    if not is_unspaced(text):
        return False
    return 2 * len(_letters()[""].findall(text)) > sum(map(len, text.split()))


def lacks_spaces(text: str) -> bool:
    """Return True if a text has no spaces between its words, judged by their length.

    Words here are separated by whitespace. Only letters in scripts of `LONGEST_WORDS` count, and only
    words that have one.
    """
    if not is_unspaced(text):
        return False
    letters = _letters()
    words = sum(letters[""].search(word) is not None for word in text.split())
    found = {script: len(letters[script].findall(text)) for script in LONGEST_WORDS}
    most = max(found, key=lambda script: found[script])
    return sum(found.values()) > LONGEST_WORDS[most] * words
