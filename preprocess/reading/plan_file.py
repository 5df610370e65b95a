"""The planned units in one file, of which a worker reads the one it works on.

So what passes through an engine is a number a unit, also where a unit is ten thousand small files.
"""

import json
from collections.abc import Sequence

import numpy as np

from preprocess.files.storage import join, read_bytes, write_bytes
from preprocess.reading.units import Unit


def write_plan(work: str, units: Sequence[Unit]) -> None:
    """Write ``units``, numbered from 0, for `read_planned`.

    The file: u8 byte offsets where each unit begins, and the end, then the units as JSON.
    """
    assert [unit.index for unit in units] == [*range(len(units))], "units are found by number"
    records = [json.dumps(unit.to_dict()).encode() for unit in units]
    begins = np.cumsum([8 * (len(units) + 1), *map(len, records)], dtype="<u8")
    write_bytes(_path(work), begins.tobytes() + b"".join(records))


def read_planned(work: str, index: int) -> Unit:
    """The unit with that number."""
    begin, end = np.frombuffer(read_bytes(_path(work), 8 * index, 8 * index + 16), "<u8").tolist()
    return Unit.from_dict(json.loads(read_bytes(_path(work), begin, end)))


def count_planned(work: str) -> int:
    """The number of planned units; 0 if there is no plan."""
    try:
        (begin,) = np.frombuffer(read_bytes(_path(work), 0, 8), "<u8").tolist()
    except FileNotFoundError:
        return 0
    return int(begin) // 8 - 1


def _path(work: str) -> str:
    return join(work, "plan.bin")
