"""Documents drawn from the raw text by a seed: for the tokenizer, and to embed.

A small corpus is read whole. Of a large one whole units are drawn first, so that a sample of
terabytes costs reading gigabytes, then documents by their hash: no draw depends on the order of
reading. Where sources are weighted, each is drawn from apart, by its share (`mixing`).
"""

import heapq
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from preprocess.config import PrepareConfig, Source
from preprocess.reading.mixing import allot, as_it_is, shares
from preprocess.reading.reader import Limits, read_unit
from preprocess.reading.units import Unit
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import SPLITS
from preprocess.text.filters import Filters
from preprocess.text.splits import hash_halves, splits_of, text_hashes

READ_BYTES = 256 << 20
"""Raw bytes read for a sample, at least."""

WHOLE = 4
"""A corpus of up to that many times the sample is read whole, a larger one in drawn units."""


@dataclass(frozen=True)
class Sample:
    """The units to read for a sample, and the share of their documents that is in it, by source."""

    units: tuple[Unit, ...]
    kept: Mapping[int, float]

    def holds(self, unit: Unit, content: int, seed: int) -> bool:
        """Whether the document of that content hash is in the sample."""
        return thin(content, self.kept[unit.source], seed)


def draw_sample(
    units: Sequence[Unit],
    config: PrepareConfig,
    wanted: int,
    seed: int,
    least_read: int = READ_BYTES,
) -> Sample:
    """A sample of about ``wanted`` raw bytes in which each source has its share.

    With all weights alike and ``sampling_alpha`` 1, every document is as likely as any other. Else a
    source gives what its share asks, and at most all it has; then the others give more. Sizes are
    raw bytes, of compressed files packed ones, and held-out sources give nothing.
    """
    sources = config.sources
    weights = [source.weight for source in sources]
    if as_it_is(weights, config.sampling_alpha):
        drawn = draw_units(units, max(least_read, WHOLE * wanted), seed)
        kept = _kept(drawn, wanted)
        return Sample(tuple(drawn), dict.fromkeys(range(len(sources)), kept))
    sizes = [0] * len(sources)
    for unit in units:
        if sources[unit.source].split in (None, "train"):
            sizes[unit.source] += unit_bytes(unit)
    parts = shares(sizes, weights, config.sampling_alpha)
    drawn, kept_of = [], {}
    for number, given in enumerate(allot(sizes, parts, wanted)):
        own = [unit for unit in units if unit.source == number] if given else []
        own = draw_units(own, int(max(least_read * parts[number], WHOLE * given)), seed)
        kept_of[number] = _kept(own, given)
        drawn += own
    return Sample(tuple(sorted(drawn, key=lambda unit: unit.index)), kept_of)


def _kept(units: Sequence[Unit], wanted: float) -> float:
    read = sum(map(unit_bytes, units))
    return min(1.0, wanted / read) if read else 0.0


def draw_units(units: Sequence[Unit], wanted_bytes: int, seed: int) -> list[Unit]:
    """Units of at least ``wanted_bytes`` raw bytes, or all; in the corpus's order."""
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
    return sum(piece.end - piece.start for piece in unit.ranges)


def read_train(
    units: Sequence[Unit], config: PrepareConfig
) -> Iterator[tuple[Unit, str, str, int]]:
    """The documents of the train split: (unit, text as given, cleaned text, content hash)."""
    for unit in units:
        source = config.sources[unit.source]
        for block in read_kept(unit, source, config):
            hashes = hash_halves(text_hashes(map(str.encode, block.texts)))
            fractions = config.valid_fraction, config.test_fraction
            splits = splits_of(hashes[:, 0], *fractions, source.split)
            for number in np.flatnonzero(splits == SPLITS.index("train")).tolist():
                high, low = hashes[number].tolist()
                yield unit, block.originals[number], block.texts[number], high << 64 | low


@dataclass(frozen=True)
class Kept:
    """The documents of a block that cleaning and filters leave, as given and as cleaned."""

    originals: Sequence[str]
    texts: Sequence[str]
    raw_bytes: int


def read_kept(unit: Unit, source: Source, config: PrepareConfig) -> Iterator[Kept]:
    """The documents of ``unit``, a unit of ``source``, that hold text and pass its filters."""
    cleaning = config.cleaning_of(source)
    cleaner = Cleaner(cleaning)
    filters = Filters(config.filters_of(source))
    for block in read_unit(unit, source, cleaning, Limits.of(config)):
        originals, texts = block.documents, cleaner.clean_batch(block.documents)
        reasons = filters.reasons(originals, texts) if filters.active else [None] * len(texts)
        left = [
            n for n, (text, why) in enumerate(zip(texts, reasons, strict=True)) if text and not why
        ]
        if len(left) < len(texts):
            originals, texts = [originals[n] for n in left], [texts[n] for n in left]
        yield Kept(originals, texts, block.raw_bytes)


def draw_documents(
    units: Sequence[Unit], config: PrepareConfig, number: int, seed: int
) -> list[str]:
    """That many different documents of the train split, as given, in the order they were drawn."""
    drawn: list[tuple[int, int, str]] = []  # a heap whose first is the last in the order
    held: set[int] = set()
    for _, raw, _, content in read_train(units, config):
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
    """A number below 2^53 drawn by a document's content and the seed."""
    folded = (content ^ (content >> 64) ^ seed * 0x9E3779B97F4A7C15) & (2**64 - 1)
    return (folded * 0xD6E8FEB86659FD93 >> 40) & (2**53 - 1)


def thin(content: int, share: float, seed: int) -> bool:
    """Whether a document is in a sample of ``share``."""
    return mixed(content, seed) < share * 2**53
