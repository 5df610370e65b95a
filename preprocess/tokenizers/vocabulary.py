"""A vocabulary of words in two memory-mapped files, so that millions of words take little memory.

    vocabulary.txt    one word per line in UTF-8, in the order of their numbers
    vocabulary.index  u8 x 3: number of words, bytes of vocabulary.txt, bytes per offset (4 or 8)
                      u8 x words: the 64-bit hashes (XXH3) of the words, sorted
                      offsets x (words + 1): where each word begins in vocabulary.txt, then its size
                      u4 x words: for each of the sorted hashes, the number of its word

All numbers are little-endian. A lookup searches the hash and then compares the spelling, so hash
collisions are resolved.
"""

import io
import mmap
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import IO

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.files import storage
from preprocess.files.temporary import temporary_file
from preprocess.tokenizers.base import TokenizerError

HEADER = np.dtype("<u8")
"""Dtype of the first three numbers of the index."""

BATCH_WORDS = 1 << 16
"""Words to write at once."""

SORTED_AT_ONCE = 1 << 21
"""Hashes to sort in memory at once, approximately."""

CHECKED_AT_ONCE = 1 << 20
"""Numbers of an index to check at once."""

COPIED_AT_ONCE = 1 << 24
"""Bytes to copy at once."""


class Vocabulary:
    """A two-way mapping between words and their numbers; ``len`` is the number of words.

    Args:
        text: contents of vocabulary.txt.
        index: contents of vocabulary.index.

    Every number of the index is checked, because the files may come from an untrusted source.

    Raises:
        TokenizerError: the index is damaged, or the two do not match.
    """

    def __init__(self, text: bytes | mmap.mmap, index: bytes | mmap.mmap) -> None:
        self._text, self._index = text, index
        if len(index) < 3 * HEADER.itemsize:
            raise TokenizerError("the vocabulary index is truncated")
        self._size: int
        self._size, text_bytes, width = np.frombuffer(index, HEADER, 3).tolist()
        begin = 3 * HEADER.itemsize
        due = begin + self._size * (8 + 4) + (self._size + 1) * width
        if width not in (4, 8) or (len(text), len(index)) != (text_bytes, due):
            raise TokenizerError("the vocabulary text and its index do not match")
        self._hashes = np.frombuffer(index, "<u8", self._size, begin)
        begin += 8 * self._size
        self._offsets = np.frombuffer(index, f"<u{width}", self._size + 1, begin)
        begin += width * (self._size + 1)
        self._numbers = np.frombuffer(index, "<u4", self._size, begin)
        if not self._is_sound(text_bytes):
            raise TokenizerError("the vocabulary index is damaged")

    def __reduce__(self) -> "tuple[type[Vocabulary], tuple[bytes, bytes]]":
        """Pickle the contents of the files, because another process may not have the files."""
        return type(self), (bytes(self._text), bytes(self._index))

    def __deepcopy__(self, memo: object) -> "Vocabulary":
        """Return the vocabulary itself, which never changes."""
        return self

    def _is_sound(self, text_bytes: int) -> bool:
        """Return True if offsets rise from 0 to the size of the text, and word numbers are in range."""
        if (int(self._offsets[0]), int(self._offsets[-1])) != (0, text_bytes):
            return False
        for begin in range(0, self._size, CHECKED_AT_ONCE):
            end = min(begin + CHECKED_AT_ONCE, self._size)
            rising = self._offsets[begin:end] < self._offsets[begin + 1 : end + 1]
            if not rising.all() or not (self._numbers[begin:end] < self._size).all():
                return False
        return True

    @classmethod
    def of_words(cls, words: Iterable[str]) -> "Vocabulary":
        """Make a vocabulary in memory; no word may contain a newline."""
        text, index = io.BytesIO(), io.BytesIO()
        write_vocabulary((word.encode() for word in words), text, index)
        return cls(text.getvalue(), index.getvalue())

    @classmethod
    def open(cls, text: str, index: str) -> "Vocabulary":
        """Memory-map the vocabulary in two files, given by path or URL.

        Remote files are first copied to a temporary folder of this process.
        """
        return cls(mapped(text), mapped(index))

    def check_words(self) -> None:
        """Check that every word is one line of UTF-8 text.

        Raises:
            TokenizerError: a word is not UTF-8, or contains a line feed.
        """
        for first in range(0, self._size, BATCH_WORDS):
            last = min(first + BATCH_WORDS, self._size)
            begin, end = int(self._offsets[first]), int(self._offsets[last])
            self._split(self._text[begin:end], last - first)

    def __len__(self) -> int:
        return self._size

    def word(self, number: int) -> str:
        """Return the word of a number.

        Raises:
            TokenizerError: it is not UTF-8.
        """
        try:
            return self._spelt(number).decode()
        except UnicodeDecodeError as error:
            raise _no_word(number) from error

    def first(self, number: int) -> list[str]:
        """Return the first ``number`` words, or all if there are fewer.

        Raises:
            TokenizerError: one is not UTF-8, or contains a line feed.
        """
        number = min(number, self._size)
        return self._split(self._text[: int(self._offsets[number])], number)

    @staticmethod
    def _split(text: bytes, number: int) -> list[str]:
        try:
            words = text.decode().split("\n")
        except UnicodeDecodeError as error:
            raise TokenizerError(f"the vocabulary text is not UTF-8 ({error.reason})") from error
        if len(words) != number + 1 or words[-1]:
            raise TokenizerError("the vocabulary text and its index do not match")
        return words[:-1]

    def find(self, words: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """Return the number of each word, int64, shape (words,); -1 for a missing word.

        Args:
            words: the words in UTF-8.
        """
        hashes = np.fromiter(map(hash_word, words), np.uint64, len(words))
        # Search in sorted order, so that memory accesses to the index are local.
        order = np.argsort(hashes)
        places = np.empty(len(words), np.int64)
        places[order] = np.searchsorted(self._hashes, hashes[order])
        found = np.full(len(words), -1, np.int64)
        todo = np.arange(len(words))
        while len(todo):
            inside = places[todo] < self._size
            todo = todo[inside]
            todo = todo[self._hashes[places[todo]] == hashes[todo]]
            numbers = self._numbers[places[todo]].astype(np.int64)
            right = np.array(
                [self._spelt(n) == words[i] for n, i in zip(numbers.tolist(), todo, strict=True)],
                bool,
            )
            found[todo[right]] = numbers[right]
            todo = todo[~right]
            places[todo] += 1
        return found

    def longest(self, number: int) -> list[str]:
        """Return the ``number`` longest words by UTF-8 bytes, longest first."""
        lengths = np.diff(self._offsets)
        order = np.lexsort((np.arange(self._size), -lengths.astype(np.int64)))
        return [self.word(n) for n in order[:number].tolist()]

    def save(self, text: str, index: str) -> None:
        """Write both files, given by path or URL."""
        for path, data in ((text, self._text), (index, self._index)):
            with storage.atomic_writer(path) as file:
                for start in range(0, len(data), COPIED_AT_ONCE):
                    file.write(data[start : start + COPIED_AT_ONCE])

    def _spelt(self, number: int) -> bytes:
        return self._text[int(self._offsets[number]) : int(self._offsets[number + 1]) - 1]


def _no_word(number: int) -> TokenizerError:
    return TokenizerError(
        f"the vocabulary is damaged: word {number:,} is not UTF-8; copy the tokenizer's folder again, or "
        "make it again with `biloom tokenizer --overwrite`"
    )


def hash_word(word: bytes) -> int:
    """Return the 64-bit XXH3 hash of a word in UTF-8."""
    return xxhash.xxh3_64_intdigest(word)


def write_vocabulary(words: Iterable[bytes], text: IO[bytes], index: IO[bytes]) -> int:
    """Write a vocabulary to two open files and return the number of words.

    Memory does not grow with the number of words, because hashes are sorted one range at a time.

    Args:
        words: distinct words in UTF-8, in the order of their numbers.
        text: file for vocabulary.txt.
        index: file for vocabulary.index.
    """
    words = iter(words)
    with temporary_file() as hashes, temporary_file() as lengths:
        size = text_bytes = 0
        while batch := list(islice(words, BATCH_WORDS)):
            text.write(b"\n".join(batch) + b"\n")
            sizes = np.fromiter(map(len, batch), np.uint64, len(batch)) + np.uint64(1)
            lengths.write(sizes.astype("<u4").tobytes())
            hashes.write(np.fromiter(map(hash_word, batch), "<u8", len(batch)).tobytes())
            size += len(batch)
            text_bytes += int(sizes.sum())
        width = 4 if text_bytes < 1 << 32 else 8
        index.write(np.array([size, text_bytes, width], HEADER).tobytes())
        with temporary_file() as numbers:
            for sorted_hashes, order in _sorted_ranges(hashes, size):
                index.write(sorted_hashes.tobytes())
                numbers.write(order.astype("<u4").tobytes())
            _write_offsets(lengths, index, width)
            numbers.seek(0)
            shutil.copyfileobj(numbers, index, COPIED_AT_ONCE)
    return size


def _sorted_ranges(
    file: IO[bytes], size: int
) -> Iterator[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]]:
    """Yield sorted hashes of ``file`` and the numbers of their words, range by range."""
    ranges = -(-size // SORTED_AT_ONCE)
    for number in range(ranges):
        first = np.uint64((number << 64) // ranges)
        last = np.uint64(((number + 1 << 64) // ranges) - 1)
        hashes, numbers = [], []
        file.seek(0)
        for begin, part in _chunks(file, "<u8", SORTED_AT_ONCE):
            inside = np.flatnonzero((part >= first) & (part <= last))
            hashes.append(part[inside])
            numbers.append(inside + begin)
        range_hashes, range_numbers = np.concatenate(hashes), np.concatenate(numbers)
        # Stable, so that words with equal hashes have a fixed order.
        order = np.argsort(range_hashes, kind="stable")
        yield range_hashes[order], range_numbers[order]


def _write_offsets(lengths: IO[bytes], index: IO[bytes], width: int) -> None:
    dtype = np.dtype(f"<u{width}")
    index.write(np.zeros(1, dtype).tobytes())
    lengths.seek(0)
    end = 0
    for _, part in _chunks(lengths, "<u4", BATCH_WORDS):
        ends = end + np.cumsum(part, dtype=np.int64)
        index.write(ends.astype(dtype).tobytes())
        end = int(ends[-1])


def _chunks(file: IO[bytes], dtype: str, size: int) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
    """Yield (index of the first number, numbers) of the rest of ``file``, ``size`` at a time."""
    begin = 0
    while data := file.read(size * np.dtype(dtype).itemsize):
        part = np.frombuffer(data, dtype)
        yield begin, part
        begin += len(part)


def mapped(path: str) -> bytes | mmap.mmap:
    """Return the bytes of a file; a remote one is copied to a file in ``TMPDIR`` that has no name.

    A worker may be killed, so a named copy might stay.
    """
    is_remote = storage.is_remote(path)
    with temporary_file() if is_remote else open(storage.local_path(path), "rb") as file:
        if is_remote:
            with storage.open_read(path) as source:
                shutil.copyfileobj(source, file, COPIED_AT_ONCE)
                file.flush()
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
