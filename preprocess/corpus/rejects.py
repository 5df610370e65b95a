"""What became no part of the result, kept for inspection: ``dropped-UNIT-NUMBER.jsonl``.

What the last pass finds lies in ``dropped-UNIT-duplicates-NUMBER.jsonl``.

A line is an object with the reason, the place in the raw file, and an excerpt or the text.
"""

import json
from collections.abc import Iterable
from typing import Any

from preprocess.files.storage import join, list_names, write_bytes
from preprocess.reading.block import Rejected
from preprocess.reading.changed_inputs import INPUTS

KEPT_ASIDE = "dropped-"
FLUSH_CHARACTERS = 4 << 20
"""Characters after which a file is closed: texts are of any length, and are held until then."""


class KeptAside:
    """The lines of a unit, written file by file.

    Args:
        folder: where the files go.
        unit: the unit's number.
        files: files that a former run has written for good.
        skip: records rejected by the reader that stand in those.
        kind: a part of the files' names.
    """

    def __init__(
        self, folder: str, unit: int, files: int = 0, skip: int = 0, kind: str = ""
    ) -> None:
        self._path = join(folder, f"{KEPT_ASIDE}{unit:06d}-{kind}")
        self._lines: list[str] = []
        self._characters = 0
        self._skip = skip
        self.files = files
        self.rejected = 0
        """Records the reader has rejected so far, those skipped included."""

    def add_rejected(self, rejected: Iterable[Rejected]) -> None:
        """Keep records that are no documents."""
        for one in rejected:
            self.rejected += 1
            if self.rejected > self._skip:
                self.add(vars(one))

    def add(self, line: dict[str, Any]) -> None:
        # Any script is to be read as it is written; what cannot be encoded keeps its escape.
        self._lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        self._characters += len(self._lines[-1])
        if self._characters >= FLUSH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Write what is held, if anything is."""
        if self._lines:
            data = "".join(self._lines).encode(errors="backslashreplace")
            write_bytes(f"{self._path}{self.files:03d}.jsonl", data)
            self._lines.clear()
            self._characters = 0
            self.files += 1


def side_files(folder: str) -> list[str]:
    """Return the names of files that describe the raw text but are not part of the result."""
    names = list_names(folder)
    return [name for name in names if name == INPUTS or name.startswith(KEPT_ASIDE)]
