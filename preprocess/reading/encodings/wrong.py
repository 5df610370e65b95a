"""Text that is not in its encoding, found by its share of invalid characters.

The first bytes of a file decide for the whole file, so that all its ranges agree. Later text is
examined where it contains invalid bytes, in stretches of `STRETCH_BYTES`. The stretches lie at
multiples of that size, so that the result does not depend on how the file is cut.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from preprocess.errors import UserError, one_line
from preprocess.reading.byte_range import HEAD_BYTES, DamagedFile
from preprocess.reading.encodings.decoding import (
    AUTO,
    contains_ascii,
    decode_beginning,
    find_encoding,
    is_cuttable,
    is_invalid,
    is_multibyte,
    replace_invalid,
)
from preprocess.reading.encodings.likely import (
    find_unmarked,
    is_plausible,
    is_wide,
    likely_encoding,
)
from preprocess.reading.stream import STRETCH_BYTES, ReadBytes

# Text is not in its encoding if the invalid characters are more than the first share of all its
# characters, more than the second share of those outside ASCII, and at least the third number.
# The first rule finds most encodings; the second finds English text with few accents. Few invalid
# characters among valid ones, or very few in ASCII text, are damage to text in the right encoding.
_RULES = ((0.02, 0.1, 4), (0.0005, 0.9, 10))
# In other encodings than UTF-8, wrong bytes are invalid less often.
_OTHER_RULES = ((0.01, 0.02, 4), _RULES[1])
_FEWEST_BYTES = 16
"""Bytes of the shortest text, or characters outside ASCII, that prove UTF-8 against other encodings."""
_FEW_BYTES = 2048
"""Bytes in which text in UTF-16 or UTF-32 has a line end, a space or a digit, and therefore a NUL."""
_LEAST_CONFIDENCE = 0.1
_OTHER = re.compile(rb"[\x80-\xff]")
# In a long file that starts with ASCII, `AUTO` looks at this many places of this many bytes.
_PLACES, _PLACE_BYTES = 7, 8192


def choose_encoding(
    path: str, head: bytes, configured: str, size: int | None, read: ReadBytes
) -> str:
    """Return the encoding of a file: that of its mark, the configured or the likely one.

    Args:
        path: the file, for error messages.
        head: its first `HEAD_BYTES`, uncompressed.
        configured: `Source.encoding`.
        size: bytes of the file, or None if it is compressed.
        read: reads from the file.

    Raises:
        DamagedFile: the first bytes are not in that encoding, or no encoding is likely.
    """
    encoding = find_encoding(head, configured)
    if encoding == AUTO:
        return _detect(path, head, size, read)
    marked = encoding != find_encoding(b"", configured)
    if problem := (encoding_problem if marked else _problem_of_head)(head, encoding):
        raise _not_in_encoding(path, problem, head)
    return encoding


class Stretches:
    """Decides whether records with invalid bytes are in the encoding of their file.

    Args:
        path: the file, for error messages.
        encoding: encoding of the bytes, one for which `is_cuttable` is True.
        configured: encoding of the file, from which the bytes may have been converted.
        read: reads the bytes.
        skip: return True for a record in another encoding instead of raising an error.
    """

    def __init__(
        self, path: str, encoding: str, configured: str, read: ReadBytes, skip: bool
    ) -> None:
        self._path = path
        self._encoding = encoding
        self._configured = configured
        self._read = read
        self._skip = skip
        self._examined = (0, 0)
        self._problem = ""

    def is_wrong(self, offset: int, size: int) -> bool:
        """Return True if a record is not in the encoding.

        This is decided by the stretch in which the record starts; a longer record is a stretch
        itself.

        Args:
            offset: byte offset of the record.
            size: its bytes.

        Raises:
            DamagedFile: the record is in another encoding, and ``skip`` is not set.
        """
        start, end = offset, offset + size
        if size <= STRETCH_BYTES:
            start -= start % STRETCH_BYTES
            end = start + STRETCH_BYTES
        if (start, end) != self._examined:
            self._examined = start, end
            data = self._read(start, end)
            self._problem = encoding_problem(data, self._encoding, self._configured)
            if self._problem and not self._skip:
                sample = data if self._encoding == self._configured else b""
                problem = f"from byte {start:,} on, {self._problem}" if start else self._problem
                raise _not_in_encoding(self._path, problem, sample)
        return bool(self._problem)


def checked_chunks(
    path: str, chunks: Iterable[bytes], encoding: str, configured: str
) -> Iterator[bytes]:
    """Yield the chunks of a file, each after the stretch that it is in was examined.

    Args:
        path: the file, for error messages.
        chunks: the file from its start.
        encoding: encoding of the chunks, one for which `is_cuttable` is True.
        configured: encoding of the file, from which they may have been converted.

    Raises:
        DamagedFile: a stretch is in another encoding.
    """
    held: list[bytes] = []
    size = start = 0
    for data in chain(chunks, [b""]):
        held.append(data)
        size += len(data)
        if size < STRETCH_BYTES and data:
            continue
        stretch = b"".join(held)
        if problem := encoding_problem(stretch, encoding, configured):
            sample = stretch if encoding == configured else b""
            problem = f"from byte {start:,} on, {problem}" if start else problem
            raise _not_in_encoding(path, problem, sample)
        yield from held
        start += size
        held, size = [], 0


def _detect(path: str, head: bytes, size: int | None, read: ReadBytes) -> str:
    """Return UTF-8 if the file is in it, otherwise the likely encoding."""
    sample = head
    if size is not None and size > len(head) and head.isascii():
        starts = (size * n // (_PLACES + 1) for n in range(1, _PLACES + 1))
        places = (read(start, start + _PLACE_BYTES) for start in starts)
        sample = b"".join(data[data.find(b"\n") + 1 :] for data in places)
    unmarked = find_unmarked(head)
    if not unmarked and not encoding_problem(sample, "utf-8"):
        return "utf-8"
    try:
        encoding = unmarked or find_likely(sample)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{one_line(path)}: it is not UTF-8, and 'encoding: auto' needs the package chardet: "
            "pip install 'biloom[encodings]'"
        ) from error
    if not encoding or _problem_of_head(head, encoding):
        raise DamagedFile(f"{one_line(path)}: it is not UTF-8; {_what_to_do(None)}")
    return encoding


def _problem_of_head(head: bytes, encoding: str) -> str:
    """Return why the first bytes of a file are not in an encoding, or an empty string."""
    found = find_unmarked(head)
    if found and found != encoding and (is_cuttable(encoding) or b"\0" in head):
        zeros = head.count(0) / len(head)
        sign = f"{zeros:.0%} of its bytes are NUL" if zeros else "it has escape sequences"
        return f"{sign}, as in text in {found}"
    if not contains_ascii(encoding) and len(head) >= _FEWEST_BYTES:
        if b"\0" not in head and not is_invalid(decode_beginning(head, "utf-8")):
            return f"it is UTF-8, not {encoding}"
        if b"\0" not in head[:_FEW_BYTES] and len(head) >= _FEW_BYTES and is_wide(encoding):
            return f"its first bytes contain no NUL, as text in {encoding} does"
        if not is_wide(encoding) and not is_plausible(head[:_FEW_BYTES], encoding):
            return f"its characters in {encoding} are control characters"
    elif encoding != "utf-8" and is_multibyte(encoding):
        text = decode_beginning(head, "utf-8")
        if _count_others(text) >= _FEWEST_BYTES and not is_invalid(text):
            return f"it is UTF-8, not {encoding}"
    return encoding_problem(head, encoding)


def encoding_problem(data: bytes, encoding: str, configured: str = "") -> str:
    """Return why bytes are not in an encoding, or an empty string."""
    text = decode_beginning(data, encoding)
    if not is_invalid(text):
        return ""
    name = configured or encoding
    _, invalid = replace_invalid(text)
    others = _count_others(text)
    wrong = any(
        invalid > share * len(text) and invalid > share_of_others * others and invalid >= fewest
        for share, share_of_others, fewest in (_RULES if name == "utf-8" else _OTHER_RULES)
    )
    shown = f"{invalid / others:.0%} of the characters outside ASCII are invalid"
    return f"{shown} in {name}" if wrong else ""


def _count_others(text: str) -> int:
    """Return the number of characters outside ASCII."""
    return len(text) - len(text.encode("ascii", "ignore"))


def find_likely(data: bytes) -> str | None:
    """Return the likely encoding of a text, from its start or its first lines outside ASCII."""
    other = _OTHER.search(data, HEAD_BYTES // 2)
    # The start may name the encoding, as that of HTML does.
    is_late = other and data[: HEAD_BYTES // 2].isascii()
    begin = data.rfind(b"\n", 0, other.start()) + 1 if other and is_late else 0
    likely = likely_encoding(data[begin : begin + HEAD_BYTES])
    name = likely[0] if likely and likely[1] > _LEAST_CONFIDENCE else None
    return "utf-8" if name == "ascii" else name


def _not_in_encoding(path: str, problem: str, sample: bytes) -> DamagedFile:
    """Return the error for a file in another encoding, with the likely one."""
    try:
        remedy = _what_to_do(find_likely(sample))
    except ModuleNotFoundError:
        remedy = _what_to_do(None, " (to learn the likely one: pip install 'biloom[encodings]')")
    return DamagedFile(f"{one_line(path)}: {problem}; {remedy}")


def _what_to_do(likely: str | None, hint: str = ", because none fits clearly") -> str:
    name = f"set 'encoding: {likely}' or 'encoding: auto' in its source"
    if not likely:
        name = f"name its encoding in its source, such as 'encoding: cp1252'{hint}"
    return f"{name}, or leave it out with prepare.damaged_files=skip"
