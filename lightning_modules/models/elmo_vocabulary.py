"""Read and write the vocabulary of an ELMo archive, as bilm-tf does: one word per line.

Lines end with LF or CRLF only, so every other character is part of a word. A byte order mark at the
beginning is not.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lightning_modules.models.elmo_errors import ElmoError, reading
from preprocess.errors import one_line
from preprocess.files import storage
from preprocess.reading.byte_range import HEAD_BYTES, DamagedFile
from preprocess.reading.compression import find_compression, unpack

CONTROLS = ("<S>", "</S>", "<UNK>")
"""Begin and end of a sentence, and the unknown word."""

SKIPPED = "!!!MAXTERMID"
"""The last line of the 1 Billion Word Benchmark's vocabulary, which bilm-tf skips."""

MARK = b"\xef\xbb\xbf"
BLOCK_BYTES = 1 << 22
MAX_EXPANSION = 100
SHOWN = 3
"""Number of words shown in a message."""


class ElmoVocabulary(NamedTuple):
    """A vocabulary.

    Attributes:
        words: the distinct words without control tokens, in the order of the file.
        notes: a sentence for each kind of line that was left out.
    """

    words: list[str]
    notes: tuple[str, ...]


def read_vocabulary(path: str) -> ElmoVocabulary:
    """Read a vocabulary file, compressed (gzip, bzip2, xz, Zstandard) or not.

    A repeated word is taken once, and an empty line is left out; both are noted.

    Raises:
        ElmoError: the file is missing, damaged, or not UTF-8 text.
    """
    try:
        with reading(path, "name a file with one word per line"):
            data = b"".join(_blocks(path))
    except DamagedFile as error:
        raise ElmoError(
            f"{path}: this compressed file is damaged or truncated, or it unpacks to more than "
            f"{MAX_EXPANSION} times its size; decompress it yourself"
        ) from error
    try:
        text = data.removeprefix(MARK).decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ElmoError(
            f"{path} is not UTF-8 text (line {line:,}: {error.reason}); convert it, for example with "
            "iconv -t UTF-8"
        ) from error
    if "\0" in text:
        raise ElmoError(
            f"{path} contains NUL characters, so it is not a text with one word per line; name another file"
        )
    lines = re.split("\r?\n", text)
    # The part after the last line's end is a line only if it holds something.
    return _distinct(lines if lines[-1] else lines[:-1])


def _blocks(path: str) -> Iterator[bytes]:
    with storage.open_read(path) as file:
        compression = find_compression(file.read(HEAD_BYTES))
        size = file.seek(0, 2)
        file.seek(0)
        blocks = iter(lambda: file.read(BLOCK_BYTES), b"")
        if compression:
            blocks = unpack(blocks, compression, BLOCK_BYTES, path, size, MAX_EXPANSION)
        yield from blocks


def _distinct(lines: list[str]) -> ElmoVocabulary:
    words: dict[str, None] = {}
    repeated: dict[str, int] = {}
    empty = 0
    for number, word in enumerate(lines, 1):
        if word in words:
            repeated.setdefault(word, number)
        elif word:
            words[word] = None
        else:
            empty += 1
    notes = []
    if repeated:
        shown = ", ".join(
            f"'{one_line(word)}' (line {number:,})"
            for word, number in list(repeated.items())[:SHOWN]
        )
        more = ", ..." if len(repeated) > SHOWN else ""
        notes.append(f"repeated words are taken once, {len(repeated):,} in all: {shown}{more}")
    if empty:
        notes.append(f"empty lines are left out, {empty:,} in all")
    for control in (*CONTROLS, SKIPPED):
        words.pop(control, None)
    return ElmoVocabulary(list(words), tuple(notes))


def write_vocabulary(words: Iterable[str]) -> tuple[bytes, list[str]]:
    """Return the bytes of a vocabulary file, and the words that it cannot hold.

    `read_vocabulary` gives the same words again. A word that is spelt like a control token is left
    out, because readers take it for the token.
    """
    left_out = []
    lines = [f"{control}\n" for control in CONTROLS]
    for word in words:
        if word in CONTROLS or word == SKIPPED or not word or "\n" in word or "\0" in word:
            left_out.append(word)
        else:
            # The carriage return at the end of a word must not become part of the line's end.
            lines.append(f"{word}\r\n" if word.endswith("\r") else f"{word}\n")
    return "".join(lines).encode(), left_out
