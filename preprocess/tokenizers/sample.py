"""The train split of raw text: its documents, and seeded draws from them.

Units (ranges of raw files) are read in a pseudo-random order. Documents are chosen by their content
hash, so a draw does not depend on the order of reading.
"""

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess.config import PrepareConfig, Source
from preprocess.quality.screening import Screener
from preprocess.reading.changed_inputs import ranges_read
from preprocess.reading.reader import Limits, read_unit
from preprocess.reading.units import Unit
from preprocess.text.config import SPLITS
from preprocess.text.splits import hash_halves, splits_of, text_hashes

READ_BYTES = 256 << 20
"""Minimum raw bytes to read for a draw, if the corpus has as many."""


def train_units(units: Sequence[Unit], config: PrepareConfig) -> list[Unit]:
    """Return the units of the sources that can have documents in the train split."""
    return [unit for unit in units if config.sources[unit.source].split in (None, "train")]


def in_drawing_order(units: Sequence[Unit], seed: int) -> list[Unit]:
    """Return the units in a pseudo-random order."""
    order = list(units)
    random.Random(seed).shuffle(order)
    return order


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
    """The documents of a block that remain after screening (`preprocess.quality.screening`).

    Attributes:
        originals: the raw texts; where lines were removed or personal data masked, the cleaned text.
        texts: the cleaned texts, in the same order.
        raw_bytes: raw bytes that were read for the block.
    """

    originals: Sequence[str]
    texts: Sequence[str]
    raw_bytes: int


def read_kept(
    unit: Unit,
    source: Source,
    config: PrepareConfig,
    inputs: list[dict[str, Any]] | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[Kept]:
    """Read a unit of ``source`` block by block; empty and filtered documents are left out.

    Rows that describe the ranges that were read (`ranges_read`) are added to ``inputs``, even if the
    caller stops before the end. ``alive`` is passed to `read_unit`.
    """
    cleaning = config.cleaning_of(source)
    screener = Screener(config, source)
    reader = read_unit(unit, source, cleaning, Limits.of(config), alive=alive)
    try:
        for block in reader:
            screened = screener.screen(block.documents, block.ids)
            originals, texts = screened.originals, screened.texts
            kept = [n for n, text in enumerate(texts) if text and not screened.reasons[n]]
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
    least_read: int = READ_BYTES,
    inputs: list[dict[str, Any]] | None = None,
) -> list[str]:
    """Draw documents with distinct cleaned texts from the train split.

    Args:
        units: all units of the corpus. Those of sources with ``split`` valid or test are not read.
        config: settings of prepare.
        number: number of documents.
        seed: seed of the draw.
        least_read: minimum raw bytes to read. More are read if they have fewer documents.
        inputs: list to which the rows of what was read are added, as in `read_train`.

    Returns:
        The raw texts of ``number`` documents in pseudo-random order, or of all if there are fewer.
    """
    drawn: list[tuple[int, int, str]] = []  # a heap: its first entry is the last of the draw
    held: set[int] = set()
    read = 0
    for unit in in_drawing_order(train_units(units, config), seed):
        if read >= least_read and len(drawn) == number:
            break
        read += unit_bytes(unit)
        for _, raw, _, content in read_train([unit], config, inputs):
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
