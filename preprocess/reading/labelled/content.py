"""Opening a labelled file: storage, compression, kind and encoding."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import BinaryIO, NamedTuple

from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.files.errors import DamagedArchive
from preprocess.reading.byte_range import HEAD_BYTES, DamagedFile
from preprocess.reading.compression import find_compression, unpack
from preprocess.reading.encodings.decoding import AUTO, decode, find_encoding, is_cuttable, to_utf8
from preprocess.reading.encodings.likely import find_unmarked, is_plausible, likely_encoding
from preprocess.reading.kinds.signatures import (
    COMPRESSED,
    PARQUET_MAGIC,
    Kind,
    find_kind,
    has_signature,
)
from preprocess.reading.reader import Limits

STANDARD_INPUT = "-"
_STREAM_BYTES = 1 << 30
"""Size that a compressed standard input is taken for, which limits what it may unpack to."""
_MARK = "\ufeff"


class Content(NamedTuple):
    """An open file.

    Attributes:
        chunks: its bytes from the start, uncompressed.
        head: the first of them: `HEAD_BYTES`, or what was there of a stream.
        parquet: the file itself if it is Parquet, otherwise None.
    """

    chunks: Iterator[bytes]
    head: bytes
    parquet: BinaryIO | None


@contextmanager
def open_content(path: str) -> Iterator[Content]:
    """Open a file or URL, or standard input for ``-``, and check that it can hold labelled text.

    Raises:
        UserError: it cannot be read, is damaged, or is of a kind that is not text.
    """
    if path == STANDARD_INPUT:
        with _errors(path):
            yield _content(path, sys.stdin.buffer, _STREAM_BYTES)
        return
    with _errors(path), storage.open_read(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        yield _content(path, file, size)


@contextmanager
def _errors(path: str) -> Iterator[None]:
    try:
        yield
    except DamagedFile as error:
        problem = error.problem or str(error)
        raise UserError(f"{one_line(path)}: {problem}; replace it with an intact copy") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError, DamagedArchive) as error:
        raise UserError(
            f"{one_line(path)}: cannot be read ({error.strerror or error}); name a file of labelled "
            "texts, its URL, or zip://MEMBER::FILE"
        ) from error


def _content(path: str, file: BinaryIO, size: int) -> Content:
    chunks = _chunks(file)
    # Of a stream only what has arrived, so that its first text is not held back.
    head = _first(chunks, 1 if path == STANDARD_INPUT else 10)
    chunks = chain([head], chunks)
    if compression := find_compression(head):
        most = Limits().max_expansion
        chunks = unpack(chunks, compression, HEAD_BYTES, path, size, most)
    head = next(chunks, b"")
    if path != STANDARD_INPUT:
        head += _first(chunks, HEAD_BYTES - len(head))
    if has_signature(head, (PARQUET_MAGIC,)) and not compression and path != STANDARD_INPUT:
        return Content(iter(()), head, file)
    _check_kind(path, head, compression is not None)
    return Content(chain([head], chunks), head, None)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    # From a pipe, read1 returns what there is, so that texts are read as they arrive.
    read = getattr(file, "read1", file.read)
    while data := read(HEAD_BYTES):
        yield data


def _first(chunks: Iterator[bytes], size: int) -> bytes:
    """Return the next bytes: at least ``size``, or all that are left."""
    data = b""
    while len(data) < size and (more := next(chunks, b"")):
        data += more
    return data


def _check_kind(path: str, head: bytes, packed: bool) -> None:
    inner = packed and find_compression(head) is not None
    encoding = find_encoding(head, find_unmarked(head) or "utf-8")
    kind: Kind | None = COMPRESSED if inner else find_kind(head, encoding, path)
    if kind:
        inside = " inside a compressed file" if packed else ""
        raise UserError(
            f"{one_line(path)}: this is {kind.what}{inside}, not a file of labelled texts; "
            f"{kind.remedy if kind.what != 'a Parquet file' else 'write it to a file, uncompressed'}"
        )


def read_whole(path: str, content: Content) -> bytes:
    """Return all bytes of a file.

    Raises:
        UserError: it is empty.
    """
    data = b"".join(content.chunks)
    if not data.removeprefix(_MARK.encode()).strip():
        what = f"has {len(data)} bytes of blank lines" if data else "is empty (0 bytes)"
        raise UserError(f"{one_line(path)}: this file {what}; name a file with labelled texts")
    return data


def decode_whole(path: str, data: bytes, configured: str) -> tuple[str, tuple[str, ...]]:
    """Return the text of a file, and notes about its encoding.

    With ``auto``, a file in which most lines outside ASCII are not UTF-8 is in its likely encoding;
    otherwise these lines are damaged. Their invalid bytes become lone surrogates in the text.

    Raises:
        UserError: no encoding fits, or chardet is needed and not installed.
    """
    encoding, notes = _choose(path, data, configured)
    return _decoded(path, data, encoding).removeprefix(_MARK), notes


def _decoded(path: str, data: bytes, encoding: str) -> str:
    if is_cuttable(encoding):
        return decode(data, encoding)[0]
    try:
        return decode(b"".join(to_utf8([data], encoding)), "utf-8")[0]
    except UnicodeError as error:
        raise UserError(
            f"{one_line(path)}: cannot be read as {encoding} ({error}); set encoding to the right one"
        ) from error


def _choose(path: str, data: bytes, configured: str) -> tuple[str, tuple[str, ...]]:
    found = find_encoding(data[:4], configured)
    if found != AUTO:
        return found, ()
    if found := find_unmarked(data[:HEAD_BYTES]) or "":
        return found, (f"the encoding is {found}",)
    lines = [line for line in data.split(b"\n") if not line.isascii()]
    wrong = [line for line in lines if decode(line, "utf-8")[1]]
    if len(wrong) <= len(lines) - len(wrong):
        return "utf-8", ()
    try:
        likely = likely_encoding(b"\n".join(wrong)[:HEAD_BYTES])
    except ModuleNotFoundError as error:
        raise UserError(
            f"{one_line(path)}: {len(wrong):,} lines are not UTF-8, and their encoding is not known; "
            "set encoding=cp1252 or another one, or pip install 'biloom[encodings]' to have the "
            "likely one found"
        ) from error
    # Its other lines are ASCII.
    fits = likely and is_cuttable(likely[0]) and is_plausible(b"\n".join(wrong), likely[0])
    if not likely or not fits:
        raise UserError(
            f"{one_line(path)}: {len(wrong):,} lines are not UTF-8, and no other encoding is likely; "
            "set encoding=cp1252 or another one"
        )
    return likely[0], (
        f"lines that are not UTF-8: {len(wrong):,}; the file is read as {likely[0]}, which is likely "
        "(encoding= sets another)",
    )


def choose_stream_encoding(path: str, head: bytes, configured: str) -> tuple[str, tuple[str, ...]]:
    """Return the encoding of a stream, found as by `decode_whole` from its first whole lines."""
    lines = head[: head.rfind(b"\n") + 1]
    return _choose(path, lines or head, configured)


def whole_lines(path: str, chunks: Iterator[bytes], encoding: str) -> Iterator[str]:
    """Yield the lines of a stream without their line feeds, as they arrive.

    Invalid bytes become lone surrogates. In an encoding such as UTF-16, the stream is read to its end
    first.
    """
    if not is_cuttable(encoding):
        text = _decoded(path, b"".join(chunks), encoding)
        yield from split_lines(text.removeprefix(_MARK))[0]
        return
    rest: list[bytes] = []
    first = True
    for chunk in chain(chunks, [b""]):
        end = chunk.rfind(b"\n")
        if chunk and end < 0:
            rest.append(chunk)
            continue
        block = b"".join([*rest, chunk[:end]]) if chunk else b"".join(rest)
        rest = [chunk[end + 1 :]]
        if block or chunk:
            text = _decoded(path, block, encoding)
            yield from (text.removeprefix(_MARK) if first else text).split("\n")
            first = False


def split_lines(text: str) -> tuple[list[str], tuple[str, ...]]:
    r"""Return the lines of a text without their line feeds, and notes.

    Only ``\n`` ends a line, or ``\r`` if the text has no ``\n``. A ``\r`` before it stays.
    """
    if "\n" not in text and "\r" in text.strip():
        return text.removesuffix("\r").split("\r"), ("lines end with a carriage return alone",)
    return text.removesuffix("\n").split("\n"), ()
