"""Documents drawn from the raw text by a seed: for the tokenizer, and to embed.

A small corpus is read whole. Of a large one whole units are drawn first, so that a sample of
terabytes costs reading gigabytes, then documents by their hash: no draw depends on the order of
reading.
"""

import heapq
import random
from collections.abc import Iterator, Sequence

from preprocess.config import PrepareConfig
from preprocess.dedup import content_hash, split_of
from preprocess.documents import read_unit
from preprocess.normalize import Cleaner
from preprocess.units import Unit

READ_BYTES = 256 << 20
"""Raw bytes read for a sample, at least."""


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
    cleaner = Cleaner(config.cleaning)
    for unit in units:
        source = config.sources[unit.source]
        for block in read_unit(unit, source, config.cleaning):
            texts = cleaner.clean_batch(block.documents)
            for raw, text in zip(block.documents, texts, strict=True):
                content = content_hash(text.encode())
                split = source.split or split_of(
                    content, config.valid_fraction, config.test_fraction
                )
                if text and split == "train":
                    yield unit, raw, text, content


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
