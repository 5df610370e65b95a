"""The sums of the records of embedded units."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from preprocess.files.manifest import FileRecord
from preprocess.work.done import read_finished_units

EARLIER = "earlier.jsonl"
"""File with the texts of a finished cache that are to be embedded again."""


@dataclass
class Sums:
    """Sums of the units' records.

    Attributes:
        files: files of the finished units.
        inputs: raw files that were read.
        dropped: texts without vectors, by reason.
        read: texts that were read.
        repeated: texts that occurred before in this job.
        known: texts that were in the cache before this job.
        truncated: words that were longer than the model reads.
        unspaced: texts whose words were separated by whitespace that they do not have.
        devices: kinds of device that computed vectors.
        precisions: types of matrix products, "float32" or "bf16".
    """

    files: list[FileRecord] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    read: int = 0
    repeated: int = 0
    known: int = 0
    truncated: int = 0
    unspaced: int = 0
    devices: set[str] = field(default_factory=set)
    precisions: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, work: str, units: int, added: Callable[[], None]) -> "Sums":
        """Return the sums over all units.

        Args:
            work: folder of unfinished work.
            units: number of units; all must be finished.
            added: called after the records of each unit.
        """
        sums = cls()
        for done, finished in read_finished_units(work, units):
            sums._add(done, finished)
            added()
        return sums

    @property
    def entries(self) -> int:
        return entries_of(self.files)

    def _add(self, done: dict[str, Any], finished: dict[str, Any]) -> None:
        self.read += done["read"]
        self.dropped.update(done["dropped"])
        self.inputs += [row for row in done["inputs"] if row["name"] != EARLIER]
        self.repeated += finished["duplicates"]
        self.known += finished["known"]
        self.truncated += finished["truncated"]
        self.unspaced += finished.get("unspaced", 0)
        # Records of earlier versions have no device.
        self.devices |= {finished["device"]} if finished.get("device") else set()
        self.precisions |= {finished.get("precision", "float32")} if finished["files"] else set()
        self.files += [FileRecord(**row) for row in finished["files"]]


def entries_of(files: list[FileRecord]) -> int:
    """Return the number of texts in the files of a cache."""
    return sum(int(f.counts["entries"]) for f in files if f.name.startswith("entries-"))
