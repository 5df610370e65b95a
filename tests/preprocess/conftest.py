"""How the tests of the readers read a file: whole, with every byte and digest accounted for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash

from preprocess.config import CleaningConfig, Source
from preprocess.documents import Block, Limits, read_unit
from preprocess.sources import list_source
from preprocess.units import plan_units

Read = Callable[..., tuple[Block, list[str]]]


def _read_file(
    path: Path,
    unit_bytes: int = 1 << 30,
    block_bytes: int = 4096,
    drop: bool = False,
    limits: Limits | None = None,
    **source: Any,
) -> tuple[Block, list[str]]:
    """All of a file as one block, and the place of each document."""
    given = Source(path=str(path), **source)
    cleaning = CleaningConfig(invalid_bytes="drop" if drop else "replace")
    raw = path.read_bytes()
    whole = Block([], [], 0, 0)
    places: list[str] = []
    for unit in plan_units([given], [list_source(given)], unit_bytes):
        reader = read_unit(unit, given, cleaning, limits or Limits(), block_bytes)
        taken = 0
        for block in reader:
            taken += block.raw_bytes
            places += [block.where(i) for i in range(len(block.documents))]
            whole = Block(
                whole.documents + block.documents,
                whole.rejected + block.rejected,
                whole.replaced + block.replaced,
                whole.raw_bytes + block.raw_bytes,
            )
        assert taken == sum(r.end - r.start for r in unit.ranges)
        assert reader.digests == [
            xxhash.xxh128_hexdigest(raw[r.start : r.end]) for r in unit.ranges
        ]
    assert whole.raw_bytes == len(raw)
    return whole, places


@pytest.fixture(scope="session")
def read_file() -> Read:
    return _read_file
