"""The records of many units or groups of units."""

from collections.abc import Iterable, Iterator
from typing import Any

from preprocess.files.bulk.at_once import at_once
from preprocess.files.storage import join, list_names
from preprocess.work.folder import group_record, read_done, read_finished_record, read_unit_record


def record_counts(work: str) -> tuple[int, int, int]:
    """Return how many unit records, drop lists and records of finished units have been written."""
    units, drops, finished = (
        len(list_names(join(work, name))) for name in ("units", "drops", "finished")
    )
    for name in list_names(join(work, "groups")):
        first, end = map(int, name.removesuffix(".json").split("-"))
        finished += end - first
    return units, drops, finished


def read_group_records(work: str, groups: Iterable[range]) -> Iterator[dict[str, Any]]:
    """Yield the records of finished groups of units, in their order; many are read at once."""
    paths = (group_record(work, units) for units in groups)
    return at_once(work, lambda path: read_done(work, path), paths)


def read_finished_units(work: str, units: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the records of the first and the last pass of each unit, in order; many are read at once."""

    def read(unit: int) -> tuple[dict[str, Any], dict[str, Any]]:
        return read_unit_record(work, unit), read_finished_record(work, unit)

    return at_once(work, read, range(units))


def unit_records(work: str) -> list[str]:
    """Return the paths of all unit records, in the order of units."""
    folder = join(work, "units")
    return [join(folder, name) for name in list_names(folder)]


def word_records(work: str) -> list[str]:
    """Return the paths of the records of all units whose words are counted, in the order of units."""
    folder = join(work, "word-counts")
    return [join(folder, name) for name in list_names(folder) if name.endswith(".json")]
