"""A folder here and elsewhere; how the tests of the readers read a file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import xxhash

from preprocess.config import Source
from preprocess.reading.block import Block
from preprocess.reading.listing import list_source
from preprocess.reading.reader import Limits, read_unit
from preprocess.reading.units import plan_units
from preprocess.text.config import CleaningConfig

Read = Callable[..., tuple[Block, list[str]]]


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder of this machine, then one of an object store's kind."""
    if request.param == "local":
        yield str(tmp_path / "folder")
        return
    yield "memory://folder"
    fsspec.filesystem("memory").store.clear()


def _read_file(
    path: Path,
    unit_bytes: int = 1 << 30,
    block_bytes: int = 4096,
    drop: bool = False,
    limits: Limits | None = None,
    **source: Any,
) -> tuple[Block, list[str]]:
    """All of a file as one block, and the place of each document.

    Every byte and digest is accounted for.
    """
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
