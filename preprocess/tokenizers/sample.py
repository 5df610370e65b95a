"""Seeded samples of raw documents: to train a tokenizer, and to embed.

A small corpus is read completely. In a large corpus, units (ranges of raw files) are drawn first, so
that a sample of terabytes reads only gigabytes. Documents are then chosen by their content hash, so
the sample does not depend on the order of reading. If sources are weighted, each is sampled
separately by its share of the mixture (`preprocess.reading.mixing`).
"""

import heapq
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess.config import PrepareConfig, Source
from preprocess.reading.changed_inputs import ranges_read
from preprocess.reading.mixing import allot, has_natural_shares, shares
from preprocess.reading.reader import Limits, read_unit
from preprocess.reading.units import Unit
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import SPLITS
from preprocess.text.filters import Filters
from preprocess.text.splits import hash_halves, splits_of, text_hashes

READ_BYTES = 256 << 20
"""Minimum raw bytes to read for a sample, if the corpus has as many."""

WHOLE = 4
"""A corpus up to this many times the size of the sample is read completely."""


@dataclass(frozen=True)
class Sample:
    """A plan for a sample of the documents of a corpus.

    Attributes:
        units: the units to read, in the order of the corpus.
        kept: by index of the source, the share of the documents in its ``units`` that is in the
            sample, in [0, 1].
    """

    units: tuple[Unit, ...]
    kept: Mapping[int, float]

    def holds(self, unit: Unit, content: int, seed: int) -> bool:
        """Return True if a document is in the sample.

        Args:
            unit: its unit, one of ``units``.
            content: its content hash, from `read_train`.
            seed: seed of the draw, as passed to `draw_sample`.
        """
        return thin(content, self.kept[unit.source], seed)


def draw_sample(
    units: Sequence[Unit],
    config: PrepareConfig,
    wanted: int,
    seed: int,
    least_read: int = READ_BYTES,
) -> Sample:
    """Plan a sample in which each source has its share of the mixture.

    With equal weights and ``sampling_alpha`` 1, all documents are equally likely. Otherwise a source
    contributes its share or, if it is smaller than that, all its text; then the other sources
    contribute more. Sources with ``split`` valid or test contribute nothing.

    Args:
        units: all units of the corpus.
        config: settings of prepare.
        wanted: approximate size of the sample in raw bytes; files count with their compressed size.
        seed: seed of the draw.
        least_read: minimum raw bytes to read.
    """
    sources = config.sources
    weights = [source.weight for source in sources]
    if has_natural_shares(weights, config.sampling_alpha):
        drawn = draw_units(units, max(least_read, WHOLE * wanted), seed)
        kept = _kept(drawn, wanted)
        return Sample(tuple(drawn), dict.fromkeys(range(len(sources)), kept))
    sizes = [0] * len(sources)
    for unit in units:
        if sources[unit.source].split in (None, "train"):
            sizes[unit.source] += unit_bytes(unit)
    parts = shares(sizes, weights, config.sampling_alpha)
    drawn, kept_of = [], {}
    for number, size in enumerate(allot(sizes, parts, wanted)):
        of_source = [unit for unit in units if unit.source == number] if size else []
        read = draw_units(of_source, int(max(least_read * parts[number], WHOLE * size)), seed)
        kept_of[number] = _kept(read, size)
        drawn += read
    return Sample(tuple(sorted(drawn, key=lambda unit: unit.index)), kept_of)


def _kept(units: Sequence[Unit], wanted: float) -> float:
    read = sum(map(unit_bytes, units))
    return min(1.0, wanted / read) if read else 0.0


def draw_units(units: Sequence[Unit], wanted_bytes: int, seed: int) -> list[Unit]:
    """Draw units at random until they have at least ``wanted_bytes`` raw bytes, or all are drawn.

    Returns:
        The drawn units, in the order of ``units``.
    """
    order = list(range(len(units)))
    random.Random(seed).shuffle(order)
    chosen, size = [], 0
    for index in order:
        if size >= wanted_bytes:
            break
        chosen.append(index)
        size += unit_bytes(units[index])
    return [units[index] for index in sorted(chosen)]


def unit_bytes(unit: Unit) -> int:
    """Return the raw bytes of a unit."""
    return sum(piece.end - piece.start for piece in unit.ranges)


def read_train(
    units: Sequence[Unit], config: PrepareConfig, inputs: list[dict[str, Any]] | None = None
) -> Iterator[tuple[Unit, str, str, int]]:
    """Yield (unit, raw text, cleaned text, content hash) of each document of the train split.

    The hash is the 128-bit `preprocess.text.splits.text_hash` of the cleaned text. Documents that are
    empty after cleaning or dropped by a filter are left out; duplicates are not. The rows of what was
    read (`preprocess.reading.changed_inputs.ranges_read`) are added to ``inputs``.
    """
    for unit in units:
        source = config.sources[unit.source]
        for block in read_kept(unit, source, config, inputs):
            hashes = hash_halves(text_hashes(map(str.encode, block.texts)))
            fractions = config.valid_fraction, config.test_fraction
            splits = splits_of(hashes[:, 0], *fractions, source.split)
            for number in np.flatnonzero(splits == SPLITS.index("train")).tolist():
                high, low = hashes[number].tolist()
                yield unit, block.originals[number], block.texts[number], high << 64 | low


@dataclass(frozen=True)
class Kept:
    """The documents of a block that remain after cleaning and filters.

    Attributes:
        originals: the raw texts.
        texts: the cleaned texts, in the same order.
        raw_bytes: raw bytes that were read for the block.
    """

    originals: Sequence[str]
    texts: Sequence[str]
    raw_bytes: int


def read_kept(
    unit: Unit, source: Source, config: PrepareConfig, inputs: list[dict[str, Any]] | None = None
) -> Iterator[Kept]:
    """Read a unit of ``source`` block by block; empty and filtered documents are left out.

    The rows of what was read are added to ``inputs``, also if the caller stops before the end.
    """
    cleaning = config.cleaning_of(source)
    cleaner = Cleaner(cleaning)
    filters = Filters(config.filters_of(source))
    reader = read_unit(unit, source, cleaning, Limits.of(config))
    try:
        for block in reader:
            originals, texts = block.documents, cleaner.clean_batch(block.documents)
            reasons = filters.reasons(originals, texts) if filters.active else [None] * len(texts)
            kept = [n for n, text in enumerate(texts) if text and not reasons[n]]
            if len(kept) < len(texts):
                originals, texts = [originals[n] for n in kept], [texts[n] for n in kept]
            yield Kept(originals, texts, block.raw_bytes)
    finally:
        if inputs is not None:
            inputs += ranges_read(unit, reader.read_so_far())


def draw_documents(
    units: Sequence[Unit],
    config: PrepareConfig,
    number: int,
    seed: int,
    inputs: list[dict[str, Any]] | None = None,
) -> list[str]:
    """Draw documents with distinct cleaned texts from the train split.

    Args:
        units: the units to read.
        config: settings of prepare.
        number: number of documents.
        seed: seed of the draw.
        inputs: list to which the rows of what was read are added, as in `read_train`.

    Returns:
        The raw texts of ``number`` documents in pseudo-random order, or of all if there are fewer.
    """
    drawn: list[tuple[int, int, str]] = []  # a heap: its first entry is the last of the draw
    held: set[int] = set()
    for _, raw, _, content in read_train(units, config, inputs):
        key = -mixed(content, seed)
        if content in held or (len(drawn) == number and (key, content) < drawn[0][:2]):
            continue
        held.add(content)
        if len(drawn) < number:
            heapq.heappush(drawn, (key, content, raw))
        else:
            held.remove(heapq.heappushpop(drawn, (key, content, raw))[1])
    return [raw for _, _, raw in sorted(drawn, reverse=True)]


def mixed(content: int, seed: int) -> int:
    """Return a pseudo-random number in [0, 2^53) for a document's content hash and a seed."""
    folded = (content ^ (content >> 64) ^ seed * 0x9E3779B97F4A7C15) & (2**64 - 1)
    return (folded * 0xD6E8FEB86659FD93 >> 40) & (2**53 - 1)


def thin(content: int, share: float, seed: int) -> bool:
    """Return True for a pseudo-random ``share``, in [0, 1], of all content hashes."""
    return mixed(content, seed) < share * 2**53
