"""``metrics.jsonl``: a line of figures each time there are some, cut back where training goes on."""

import json
import math
import os
from typing import Any

from preprocess.files import storage
from preprocess.files.errors import told_writes

METRICS = "metrics.jsonl"


class MetricsFile:
    """Lines of a training, up to the step it goes on from; then new ones.

    On a local disk each line is there at once, for whoever watches, and `save` makes it safe; in a
    store the file is put whole by `save`.
    """

    def __init__(self, path: str, step: int) -> None:
        self._path, self._remote = path, storage.is_remote(path)
        self._lines = _lines_up_to(path, step)
        self._put_whole()
        if not self._remote:
            self._lines = []

    def put(self, row: dict[str, Any]) -> None:
        """Add a line; what is no number (JSON knows neither NaN nor infinity) becomes null."""
        line = json.dumps({key: _finite(value) for key, value in row.items()})
        if self._remote:
            self._lines.append(line)
            return
        with told_writes(self._path), open(storage.local_path(self._path), "a") as file:
            file.write(f"{line}\n")

    def save(self) -> None:
        """Make sure that no line is lost, whatever happens to the machine."""
        if self._remote:
            self._put_whole()
            return
        with told_writes(self._path), open(storage.local_path(self._path), "a") as file:
            os.fsync(file.fileno())

    def _put_whole(self) -> None:
        storage.write_bytes(self._path, "".join(f"{line}\n" for line in self._lines).encode())


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows_up_to(path: str, step: int) -> list[dict[str, Any]]:
    """The rows of a file up to a step; none where there is no file."""
    return [json.loads(line) for line in _lines_up_to(path, step)]


def _lines_up_to(path: str, step: int) -> list[str]:
    lines = storage.read_bytes(path).decode().splitlines() if storage.exists(path) else []
    return [line for line in lines if _step(line) <= step]


def _step(line: str) -> float:
    """The step of a line; a line that a kill cut short is of no step that is kept."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf
