"""Encodings of raw text: byte order marks, what may be cut at line ends, and the rest as UTF-8.

Most encodings keep the byte 0A for the line end, so a big file in one can be cut and decoded in
blocks. The others (UTF-16, UTF-32, EBCDIC, and those with shift states such as ISO-2022-JP) are
turned into UTF-8 as a stream from the file's start. UTF-16 without a byte order mark is not
recognised; unless `Source.encoding` names it, its text comes out with NUL characters.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Without a mark Python takes the machine's own order, and every machine is to read alike.
_UNMARKED = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}
_INVALID = "\udcff"
_AS_INVALID = "biloom-invalid"
# Longer than any character: an open sequence then ends at a line's end and does not swallow it.
_PAD = b"\n" * 8


def _as_invalid(error: UnicodeError) -> tuple[str | bytes, int]:
    """One lone surrogate for each sequence that is no text; the byte FF, which UTF-8 has not, for one."""
    if isinstance(error, UnicodeDecodeError):
        return _INVALID, error.end
    assert isinstance(error, UnicodeEncodeError)
    return b"\xff" * (error.end - error.start), error.end


codecs.register_error(_AS_INVALID, _as_invalid)


def find_encoding(head: bytes, configured: str) -> str:
    """The encoding of a text with these first bytes: a byte order mark goes before the configured."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    return _UNMARKED.get(configured, configured)


@lru_cache
def is_cuttable(encoding: str) -> bool:
    """Whether the byte 0A is a line end wherever it stands."""
    stateful = encoding.startswith(("iso2022", "utf-7", "hz"))
    return not stateful and "\n".encode(encoding) == b"\n"


def to_utf8(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """A text as UTF-8; every sequence that is no text becomes the byte FF, which is none either."""
    decoder = codecs.getincrementaldecoder(encoding)(_AS_INVALID)
    for data in chunks:
        yield decoder.decode(data).encode("utf-8", _AS_INVALID)
    yield decoder.decode(b"", True).encode("utf-8", _AS_INVALID)


def decode(data: bytes, encoding: str) -> tuple[str, bool]:
    """The text of whole lines, and whether it holds `invalid` characters.

    A block is decoded exactly as its lines would be one by one.
    """
    try:
        return data.decode(encoding), False
    except UnicodeDecodeError:
        return (data + _PAD).decode(encoding, _AS_INVALID)[: -len(_PAD)], True


def is_invalid(text: str) -> bool:
    """Whether `decode` found bytes in it that are no text."""
    return _INVALID in text


def replace_invalid(text: str) -> tuple[str, int]:
    """U+FFFD for what `decode` found to be no text, and how many of them."""
    return text.replace(_INVALID, "\ufffd"), text.count(_INVALID)


@lru_cache
def blank_lines(encoding: str) -> re.Pattern[bytes]:
    """A line end and the lines of nothing but white space that follow it."""
    spaces: set[bytes] = set()
    for code in range(0x3001):
        if code != 0x0A and chr(code).isspace():
            try:
                spaces.add(chr(code).encode(encoding))
            except UnicodeEncodeError:
                continue
    single = b"".join(re.escape(space) for space in sorted(spaces) if len(space) == 1)
    longer = b"".join(b"|" + re.escape(space) for space in sorted(spaces) if len(space) > 1)
    # Possessive, or a line of a million spaces would be remembered space by space.
    return re.compile(rb"\n(?:(?:[%s]++%s)*+\n)++" % (single, longer))
