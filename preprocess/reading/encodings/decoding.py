"""Decoding of raw text.

In most encodings the byte 0A is always a line end, so files can be cut at line ends and decoded in
blocks. Files in other encodings (UTF-16, UTF-32, EBCDIC, and encodings with shift states such as
ISO-2022-JP) are converted to UTF-8 as a stream from their start.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

AUTO = "auto"
"""Value of `Source.encoding` for the encoding that is likely for each file."""
# UTF-32 before UTF-16, because its little-endian mark starts with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Without a mark Python uses the byte order of the machine; results must not depend on that.
_UNMARKED = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}
INVALID = "\udcff"
"""Stands for a sequence of invalid bytes in a decoded text."""
_AS_INVALID = "biloom-invalid"
# Longer than any character, so that an incomplete sequence at the end of a block is invalid alone.
_PAD = b"\n" * 8


def _as_invalid(error: UnicodeError) -> tuple[str | bytes, int]:
    """Error handler that decodes invalid bytes to `INVALID` and encodes that to FF."""
    if isinstance(error, UnicodeDecodeError):
        return INVALID, error.end
    assert isinstance(error, UnicodeEncodeError)
    return b"\xff" * (error.end - error.start), error.end


codecs.register_error(_AS_INVALID, _as_invalid)


def find_encoding(head: bytes, configured: str) -> str:
    """Return the encoding named by a byte order mark in ``head``, otherwise the configured one."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    return _UNMARKED.get(configured, configured)


@lru_cache
def is_cuttable(encoding: str) -> bool:
    """Return True if the byte 0A is always a line end, so that files may be cut there.

    Also True for `AUTO`: files whose encoding is not known yet are cut.
    """
    stateful = encoding.startswith(("iso2022", "utf-7", "hz"))
    return encoding == AUTO or (not stateful and contains_ascii(encoding))


def contains_ascii(encoding: str) -> bool:
    """Return True if a line end is the byte 0A, unlike in UTF-16, UTF-32 and EBCDIC."""
    return "\n".encode(encoding) == b"\n"


@lru_cache
def is_multibyte(encoding: str) -> bool:
    """Return True if some characters have more than one byte."""
    return len(bytes(range(128, 256)).decode(encoding, "replace")) < 128


def to_utf8(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Convert chunks of a text to UTF-8; invalid bytes become FF, which is invalid in UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)(_AS_INVALID)
    for data in chunks:
        yield decoder.decode(data).encode("utf-8", _AS_INVALID)
    yield decoder.decode(b"", True).encode("utf-8", _AS_INVALID)


def decode(data: bytes, encoding: str) -> tuple[str, bool]:
    """Decode whole lines together; invalid bytes in a line do not affect other lines.

    Returns:
        The text, and True if it contains invalid bytes (see `is_invalid` and `replace_invalid`).
    """
    try:
        return data.decode(encoding), False
    except UnicodeDecodeError:
        return (data + _PAD).decode(encoding, _AS_INVALID)[: -len(_PAD)], True


def decode_beginning(data: bytes, encoding: str) -> str:
    """Decode the first bytes of a text; an incomplete character at their end is left out.

    Returns:
        The text; if it contains invalid bytes, see `is_invalid` and `replace_invalid`.
    """
    try:
        return codecs.getincrementaldecoder(encoding)(_AS_INVALID).decode(data)
    except UnicodeError:
        # Python's decoder fails on long runs of invalid escape sequences.
        return ""


def is_invalid(text: str) -> bool:
    """Return True if a text from `decode` contains invalid bytes."""
    return INVALID in text


def replace_invalid(text: str) -> tuple[str, int]:
    """Replace invalid bytes in a text from `decode` with U+FFFD; return the text and their number."""
    return text.replace(INVALID, "\ufffd"), text.count(INVALID)


@lru_cache
def blank_lines(encoding: str) -> re.Pattern[bytes]:
    """Return a pattern for encoded text that matches a line end and at least one blank line after it.

    A blank line is empty or contains only whitespace.
    """
    spaces: set[bytes] = set()
    for code in range(0x3001):
        if code != 0x0A and chr(code).isspace():
            try:
                spaces.add(chr(code).encode(encoding))
            except UnicodeEncodeError:
                continue
    single = b"".join(re.escape(space) for space in sorted(spaces) if len(space) == 1)
    longer = b"".join(b"|" + re.escape(space) for space in sorted(spaces) if len(space) > 1)
    # Possessive quantifiers, so that a line of a million spaces needs no memory for backtracking.
    return re.compile(rb"\n(?:(?:[%s]++%s)*+\n)++" % (single, longer))
