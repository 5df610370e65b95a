"""Fixtures: a local and a remote folder, and a function that reads a raw file."""

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
    """An empty local folder, then a folder of an in-memory object store."""
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
    """Read a file through units of ``unit_bytes`` and join their blocks.

    Checks that the blocks account for every byte and that the digests are right.

    Returns:
        The whole file as one block, and the place of each document.
    """
    settings = Source(path=str(path), **source)
    cleaning = CleaningConfig(invalid_bytes="drop" if drop else "replace")
    raw = path.read_bytes()
    whole = Block([], [], 0, 0)
    places: list[str] = []
    for unit in plan_units([settings], [list_source(settings)], unit_bytes):
        reader = read_unit(unit, settings, cleaning, limits or Limits(), block_bytes)
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
        parts = [one.parts for one in reader.read_so_far()]
        assert reader.digests == [
            xxhash.xxh128_hexdigest(b"".join(raw[a:b] for a, b in read or [(r.start, r.end)]))
            for r, read in zip(unit.ranges, parts, strict=True)
        ]
    assert whole.raw_bytes == len(raw)
    return whole, places


@pytest.fixture(scope="session")
def read_file() -> Read:
    return _read_file
