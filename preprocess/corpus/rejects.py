"""Rejected records and dropped documents, written to JSON Lines files for inspection.

The first pass of prepare and the embed stage write ``dropped-UNIT-NUMBER.jsonl``. The last pass of
prepare writes ``dropped-UNIT-duplicates-NUMBER.jsonl``. Each line is an object. A rejected record has
the keys ``reason``, ``excerpt`` and ``where`` (`Rejected`). A dropped document has ``reason``, ``text``
and ``where``. A duplicate also has ``of``, the earlier document as a
`preprocess.shards.origins.DocumentKey`.
"""

import json
from collections.abc import Iterable
from typing import Any

from preprocess.files.storage import join, list_names, write_bytes
from preprocess.reading.block import Rejected
from preprocess.reading.changed_inputs import INPUTS

PREFIX = "dropped-"
"""Prefix of the file names."""

FLUSH_CHARACTERS = 4 << 20
"""Characters to hold in memory before a file is written."""


class RejectsWriter:
    """Writer of the rejects of a unit; call `flush` at the end.

    Args:
        folder: folder or URL to write to.
        unit: number of the unit.
        files: number of files that a killed run has completed; numbering continues after them.
        skip: number of rejected records in these files. `add_rejected` skips as many, because a
            resumed run reads them again.
        kind: part of the file names, after the unit.

    Attributes:
        files: number of files completed.
        rejected: number of records passed to `add_rejected`, skipped ones included.
    """

    def __init__(
        self, folder: str, unit: int, files: int = 0, skip: int = 0, kind: str = ""
    ) -> None:
        self._path = join(folder, f"{PREFIX}{unit:06d}-{kind}")
        self._lines: list[str] = []
        self._characters = 0
        self._skip = skip
        self.files = files
        self.rejected = 0

    def add_rejected(self, rejected: Iterable[Rejected]) -> None:
        """Add records that the reader rejected, in the order of reading."""
        for record in rejected:
            self.rejected += 1
            if self.rejected > self._skip:
                self.add(vars(record))

    def add(self, line: dict[str, Any]) -> None:
        """Add a line, given as JSON types."""
        # Not ASCII, so that any script stays readable; lone surrogates are escaped in `flush`.
        self._lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        self._characters += len(self._lines[-1])
        if self._characters >= FLUSH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Write the lines held in memory, if there are any, as a complete file."""
        if self._lines:
            data = "".join(self._lines).encode(errors="backslashreplace")
            write_bytes(f"{self._path}{self.files:03d}.jsonl", data)
            self._lines.clear()
            self._characters = 0
            self.files += 1


def side_files(folder: str) -> list[str]:
    """Return the names of the files in a stage's folder that describe its raw input.

    These are ``inputs.jsonl`` and the files with rejects. A manifest lists them, but its ``content``
    does not depend on them.
    """
    names = list_names(folder)
    return [name for name in names if name == INPUTS or name.startswith(PREFIX)]
