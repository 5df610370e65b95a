"""Decontamination: documents that share an n-gram of words with an item of a benchmark.

Texts are compared as in appendix C of Brown et al. 2020, "Language Models are Few-Shot Learners"
(https://arxiv.org/abs/2005.14165): in lower case, without punctuation, by n-grams of 13 words. There,
and as in datatrove (``decont/n_grams.py``), punctuation separates words, so that the tokenised texts
of a benchmark match running text. GPT-3 cut 200 characters around a match out of long documents;
here the document is dropped, as in datatrove. In scripts without spaces, each letter is a word.

An index holds a 64-bit hash and the number of the item for each n-gram: 12 bytes, and 2 more for a
table of bits that most n-grams of a corpus are tested with first.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError, one_line
from preprocess.quality.list_files import content_of_files, versions_of
from preprocess.text.quality.benchmark_config import Benchmark, DecontaminationConfig
from preprocess.text.quality.hashing import Hashes, ngram_hashes
from preprocess.text.quality.layout import Layout, layouts_of

SETTING = "decontamination.benchmarks"
_BATCH_CHARACTERS = 1 << 20
_BITS_PER_KEY = 16
_SECOND = 0x9E3779B97F4A7C15


@dataclass
class Items:
    """What was read of a benchmark.

    Attributes:
        items: number of records.
        without_text: records without a text.
        short: items that are not searched, because they have too few words.
        first: number of the first item, counted over all benchmarks.
        notes: what was found about format and columns, a line each.
    """

    items: int = 0
    without_text: int = 0
    short: int = 0
    first: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Match:
    """A document that shares an n-gram with a benchmark.

    Attributes:
        benchmark: name of the first benchmark that matched, by place in the document.
        item: number of the item in its benchmark, from 1 on, over its files in order.
        ngram: the words that both have, as compared.
        items: for each benchmark that matched, the numbers of all items that share an n-gram.
    """

    benchmark: str
    item: int
    ngram: str
    items: dict[str, set[int]]


class Benchmarks:
    """The benchmarks of a config, as an index of n-grams.

    Args:
        config: names and files.

    Attributes:
        items: what was read, by benchmark.

    Raises:
        UserError: a file cannot be read, or a benchmark has no text that can be searched.
    """

    def __init__(self, config: DecontaminationConfig) -> None:
        self._size, self._least = config.ngram, config.shortest
        self._every_size = range(self._least, self._size + 1)
        self.items: dict[str, Items] = {}
        hashes: list[Hashes] = []
        owners: list[npt.NDArray[np.uint32]] = []
        sizes: set[int] = set()
        number = 0
        for name, benchmark in config.named.items():
            read = self.items[name] = Items(first=number)
            searched = bytearray()
            for numbers, texts in _batches(benchmark, read):
                searched.extend(bytes(read.items - len(searched)))
                for found, owner, size in self._ngrams(texts, numbers, searched):
                    hashes.append(found)
                    owners.append(owner + np.uint32(number))
                    sizes.add(size)
            read.short = read.items - read.without_text - sum(searched)
            number += read.items
            if not any(searched):
                raise UserError(_nothing_to_search(name, benchmark, read, self._least))
        keys = np.concatenate([*hashes, np.empty(0, np.uint64)])
        order = np.argsort(keys, kind="stable")
        self._keys, self._owners = keys[order], np.concatenate(owners)[order]
        self._sizes = sorted(sizes)
        self._filter = _BitTable(self._keys)
        self._names = [*self.items]
        self._starts = [read.first for read in self.items.values()]

    def _ngrams(
        self, texts: Sequence[str], numbers: Sequence[int], searched: bytearray
    ) -> Iterator[tuple[Hashes, npt.NDArray[np.uint32], int]]:
        """Yield hashes of n-grams, the numbers of their items, and n; mark the items in ``searched``."""
        numbered = np.array(numbers, np.uint32)
        for indexes, layout in _word_layouts(texts):
            words = layout.words
            items = numbered[indexes]
            for item in items[words.numbers >= self._least].tolist():
                searched[item] = 1
            for size, found in ngram_hashes(layout.word_hashes, self._every_size):
                fitting = words.numbers >= size if size == self._size else words.numbers == size
                owner = words.texts[: len(found)]
                chosen = _is_inside(layout, size) & fitting[owner]
                if chosen.any():
                    yield found[chosen], items[owner[chosen]], size

    def matches(self, texts: Sequence[str]) -> dict[int, Match]:
        """Return the match of each text that shares an n-gram with a benchmark, by index."""
        found: dict[int, Match] = {}
        for indexes, layout in _word_layouts(texts):
            words = layout.words
            hits: dict[int, list[tuple[int, int, int]]] = {}
            for size, hashes in ngram_hashes(layout.word_hashes, self._sizes):
                places = np.flatnonzero(self._filter.may_have(hashes) & _is_inside(layout, size))
                left = np.searchsorted(self._keys, hashes[places])
                same = self._keys[left.clip(max=len(self._keys) - 1)] == hashes[places]
                places, left = places[same], left[same]
                right = np.searchsorted(self._keys, hashes[places], "right")
                for at in range(len(places)):
                    place = int(places[at])
                    for owner in self._owners[left[at] : right[at]].tolist():
                        hits.setdefault(int(words.texts[place]), []).append((place, size, owner))
            for text, entries in hits.items():
                found[indexes[text]] = self._match(layout, entries)
        return found

    def _match(self, layout: Layout, entries: list[tuple[int, int, int]]) -> Match:
        place, size, owner = min(entries)
        words, joined = layout.words, layout.text_list[int(layout.words.texts[place])]
        offset = int(layout.text_starts[words.texts[place]])
        spans = zip(
            words.starts[place : place + size], words.ends[place : place + size], strict=True
        )
        ngram = " ".join(joined[start - offset : end - offset] for start, end in spans)
        items: dict[str, set[int]] = {}
        for _, _, one in entries:
            name, number = self._item(one)
            items.setdefault(name, set()).add(number)
        name, number = self._item(owner)
        return Match(name, number, ngram, items)

    def _item(self, owner: int) -> tuple[str, int]:
        """Return the benchmark of an item, and its number there, from 1 on."""
        name = self._names[bisect_right(self._starts, owner) - 1]
        return name, owner - self.items[name].first + 1


class _BitTable:
    """A Bloom filter of two bits a key: it tells for most hashes that they are not among the keys."""

    def __init__(self, keys: Hashes) -> None:
        bits = max(10, (_BITS_PER_KEY * max(len(keys), 1)).bit_length() - 1)
        self._shift = np.uint64(64 - bits)
        self._bytes = np.zeros(1 << (bits - 3), np.uint8)
        for begin in range(0, len(keys), _BATCH_CHARACTERS):
            for slots in self._slots(keys[begin : begin + _BATCH_CHARACTERS]):
                np.bitwise_or.at(self._bytes, slots >> np.uint64(3), _bit(slots))

    def may_have(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Return False for hashes that are no keys, and for few others True, shape (hashes,)."""
        found = np.ones(len(hashes), bool)
        for slots in self._slots(hashes):
            found &= (self._bytes[slots >> np.uint64(3)] & _bit(slots)) != 0
        return found

    def _slots(self, hashes: Hashes) -> tuple[Hashes, Hashes]:
        return hashes >> self._shift, (hashes * np.uint64(_SECOND)) >> self._shift


def _bit(slots: Hashes) -> npt.NDArray[np.uint8]:
    return np.left_shift(np.uint8(1), (slots & np.uint64(7)).astype(np.uint8))


def _word_layouts(texts: Sequence[str]) -> Iterator[tuple[list[int], Layout]]:
    return layouts_of([*map(str.lower, texts)], punctuation=False)


def _is_inside(layout: Layout, size: int) -> npt.NDArray[np.bool_]:
    """Return which n-grams lie in one text, shape (words - size + 1,)."""
    texts = layout.words.texts
    number = max(len(texts) - size + 1, 0)
    inside: npt.NDArray[np.bool_] = texts[:number] == texts[size - 1 : size - 1 + number]
    return inside


def _batches(benchmark: Benchmark, read: Items) -> Iterator[tuple[list[int], list[str]]]:
    """Yield the numbers of items, from 0 on, and their texts; count the items and those without a text.

    The column of second texts is read on its own, so that an item may lack one of its texts.
    """
    # Imported here, because every worker imports this module and few read a benchmark.
    from preprocess.reading.labelled.inputs import read_texts
    from preprocess.reading.labelled.options import LabelledTextOptions

    numbers: list[int] = []
    texts: list[str] = []
    characters = 0
    has_text = bytearray()
    for column in (benchmark.text, benchmark.pair):
        if column is None and read.items:
            continue
        number = 0
        for path in benchmark.paths:
            for record in read_texts(path, LabelledTextOptions(text=column), read.notes.append):
                if number == read.items:
                    read.items += 1
                    has_text.append(0)
                for text in (record.text, record.pair):
                    if text:
                        has_text[number] = 1
                        numbers.append(number)
                        texts.append(text)
                        characters += len(text)
                number += 1
                if characters >= _BATCH_CHARACTERS:
                    yield numbers, texts
                    numbers, texts, characters = [], [], 0
    read.without_text = read.items - sum(has_text)
    if texts:
        yield numbers, texts


def _nothing_to_search(name: str, benchmark: Benchmark, read: Items, least: int) -> str:
    paths = ", ".join(map(one_line, benchmark.paths))
    if read.items == read.without_text:
        return f"{SETTING}.{name}: {paths} has no text; name its column with text: COLUMN"
    return (
        f"{SETTING}.{name}: none of the {read.items:,} items of {paths} has {least} words "
        "(decontamination.min_words), so that none can be searched; name the column with whole texts, or "
        "leave this benchmark out"
    )


def content_of_benchmarks(config: DecontaminationConfig) -> str:
    """Return a hash of the contents of all files and of what is read of them, for the fingerprint.

    Raises:
        UserError: a file is missing, empty or damaged.
    """
    return content_of_files(
        (
            (f"{name} {benchmark.text} {benchmark.pair}", path)
            for name, benchmark in config.named.items()
            for path in benchmark.paths
        ),
        SETTING,
        binary=True,
    )


def cached_benchmarks(config: DecontaminationConfig) -> Benchmarks:
    """Return the index of the benchmarks, which is made once a process, unless a file changes."""
    paths = (path for benchmark in config.named.values() for path in benchmark.paths)
    return _cached(config.model_dump_json(), versions_of(paths))


@lru_cache(1)
def _cached(settings: str, versions: tuple[float | None, ...]) -> Benchmarks:
    return Benchmarks(DecontaminationConfig.model_validate_json(settings))
