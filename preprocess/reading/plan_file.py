"""The file that holds all planned units; a worker reads a single unit from it by number.

So a Beam engine transports only unit numbers, even if a unit has ten thousand small files.
"""

import json
from collections.abc import Sequence

import numpy as np

from preprocess.errors import UserError
from preprocess.files.storage import exists
from preprocess.reading.units import Unit
from preprocess.work.damage import damaged_work
from preprocess.work.folder import plan_file
from preprocess.work.groups import count_groups, read_group, write_groups


def write_plan(work: str, units: Sequence[Unit]) -> None:
    """Write the units of a plan, numbered from 0, to the folder of unfinished work."""
    assert [unit.index for unit in units] == [*range(len(units))], "units are not numbered from 0"
    records = [json.dumps(unit.to_dict()).encode() for unit in units]
    write_groups(plan_file(work), b"".join(records), np.cumsum([0, *map(len, records)]))


def read_planned(work: str, index: int) -> Unit:
    """Return the unit with this number.

    Raises:
        DamagedWork: the plan is damaged.
    """
    path = plan_file(work)
    try:
        return Unit.from_dict(json.loads(read_group(path, index)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise damaged_work(path, str(error)) from error


def count_planned(work: str) -> int:
    """Return the number of planned units; 0 if there is no plan."""
    path = plan_file(work)
    return count_groups(path) if exists(path) else 0
