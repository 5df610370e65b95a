"""The likely encoding of a text whose encoding is not known.

UTF-16, UTF-32 and 7-bit encodings with escape sequences are recognised here, because the bytes of
such text prove them. Other encodings are told apart by chardet, an optional dependency.
"""

import codecs
import importlib
import importlib.metadata
import re
import unicodedata
from functools import lru_cache

from preprocess.reading.encodings.decoding import decode_beginning, is_invalid

_ESCAPES = re.compile(rb"\x1b\$[@B]|\x1b\$\([CDOPQ]|\x1b\$\)[CAG]|~\{[!-~]{2}")
# Tried in this order. An encoding comes after those that it contains.
_ESCAPED = ("iso2022_jp", "iso2022_jp_3", "iso2022_jp_2004", "iso2022_jp_ext", "iso2022_kr", "hz")
_FEWEST = 4
"""Characters outside ASCII that prove an encoding with escape sequences."""
_WIDE_BYTES = 4096
"""First bytes in which UTF-16 and UTF-32 are looked for."""
# A text is in UTF-16 or UTF-32 if it has at least this many bytes, and if at least the first share of
# its characters is odd (see `_odd`) when decoded as UTF-8, but at most the second share when decoded
# as UTF-16 or UTF-32.
# The odd characters in UTF-8 must also outweigh what tells against UTF-16: characters in UTF-8 of
# several bytes, which random bytes rarely are, and rare characters in UTF-16, with this weight.
# Two letters of ASCII are a Chinese character, but in 7 of 10 cases a rare one, and 1 in 1,000 of text.
_FEWEST_BYTES = 8
_FEWEST_ODD, _MOST_ODD = 0.05, 0.02
_RARE_WEIGHT = 2
# The characters of everyday text in Chinese, Japanese and Korean: those whose bytes in one of these
# encodings are below a bound, at which the second level of Chinese characters begins.
_EVERYDAY = (
    ("gb2312", b"\xd8"),
    ("big5", b"\xc9"),
    ("shift_jis", b"\x98\x9f"),
    ("euc_kr", b"\xff"),
)
# Text beyond the sample may have characters that only the second encoding has.
_WIDER = {
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
}


def find_unmarked(head: bytes) -> str | None:
    """Return the encoding of a text in UTF-16 or UTF-32 without a mark, in ISO-2022 or in HZ.

    Args:
        head: the first bytes of the text.

    Returns:
        The encoding, or None if the text is in none of them.
    """
    if b"\0" in head:
        return _find_wide(head[:_WIDE_BYTES])
    # The search for one of these takes far less time than that for all sequences.
    escaped = b"\x1b" in head or b"~{" in head
    if escaped and head.isascii() and _ESCAPES.search(head):
        for encoding in _ESCAPED:
            text = decode_beginning(head, encoding)
            if text and not is_invalid(text) and "\x1b" not in text and _foreign(text) >= _FEWEST:
                return encoding
    return None


@lru_cache(maxsize=64)
def likely_encoding(sample: bytes) -> tuple[str, float] | None:
    """Return the likely encoding of a text that is not UTF-8, and the confidence in it.

    Args:
        sample: bytes of the text, starting at a line.

    Returns:
        The encoding and a confidence in [0, 1]; None if no encoding fits or Python lacks it.

    Raises:
        ModuleNotFoundError: chardet is needed and not installed.
    """
    if unmarked := find_unmarked(sample):
        return unmarked, 1.0
    if not sample:
        return None
    detect = importlib.import_module("chardet").detect
    found = detect(sample, max_bytes=len(sample))
    try:
        name = codecs.lookup(found["encoding"] or "").name
    except LookupError:
        return None
    wider = _WIDER.get(name, name)
    return name if is_invalid(decode_beginning(sample, wider)) else wider, found["confidence"]


def is_plausible(head: bytes, encoding: str) -> bool:
    """Return True if at most 2 % of the characters are invalid, control or unassigned characters."""
    shown = "".join(decode_beginning(head, encoding).split())
    return bool(shown) and _odd(shown, "Cc", "Cn", "Co") <= _MOST_ODD * len(shown)


def is_wide(encoding: str) -> bool:
    """Return True for UTF-16 and UTF-32."""
    return encoding.startswith(("utf-16", "utf-32"))


def _find_wide(head: bytes) -> str | None:
    """Return the encoding of a text in UTF-16 or UTF-32 that contains NUL bytes, or None.

    A text of one byte a character may contain NUL bytes, too: a damaged byte, padding, separators.
    """
    as_utf8 = decode_beginning(head, "utf-8")
    # In UTF-8, the bytes of UTF-16 are control characters or invalid; a text has few of them.
    odd_in_utf8 = _odd(as_utf8, "Cc")
    if len(head) < _FEWEST_BYTES or odd_in_utf8 < _FEWEST_ODD * len(as_utf8):
        return None
    unexplained = odd_in_utf8 - sum(c > "\x7f" and not is_invalid(c) for c in as_utf8)
    # Text in one script has few high bytes; those of ASCII are NUL.
    even, odd = head[0::2], head[1::2]
    low_first = (len(set(odd)), -odd.count(0)) <= (len(set(even)), -even.count(0))
    orders = ("utf-16-le", "utf-16-be") if low_first else ("utf-16-be", "utf-16-le")
    wide = ("utf-32-le", "utf-32-be", *orders)
    return next(
        (
            encoding
            for encoding in wide
            if is_plausible(head, encoding)
            and unexplained > _RARE_WEIGHT * sum(map(_is_rare, decode_beginning(head, encoding)))
        ),
        None,
    )


def _odd(text: str, *categories: str) -> int:
    """Return the number of invalid characters and of those in some Unicode categories.

    Whitespace is not counted.
    """
    return sum(
        is_invalid(c) or (unicodedata.category(c) in categories and not c.isspace()) for c in text
    )


@lru_cache(maxsize=1 << 16)
def _is_rare(char: str) -> bool:
    """Return True if two bytes of ASCII or of UTF-8 may be a character, but text rarely has it."""
    return "\u2000" <= char < "\ue000" and not any(
        b"" < char.encode(encoding, "ignore") < bound for encoding, bound in _EVERYDAY
    )


def _foreign(text: str) -> int:
    return sum(c > "\x7f" for c in text)
