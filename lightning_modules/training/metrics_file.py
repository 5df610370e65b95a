"""The file ``metrics.jsonl``: one JSON object per line, with the step in "step"."""

import json
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_modules.evaluation.held_out import WAYS
from preprocess.files import storage
from preprocess.files.errors import report_write_errors
from preprocess.files.write_checks import check_write

METRICS = "metrics.jsonl"

Row = Mapping[str, Any]
"""A row of the file."""


def metric_names(directions: int, has_held_out: bool) -> list[str]:
    """Return the names of all metrics that a training logs, besides "step".

    Args:
        directions: number of directions of the model.
        has_held_out: whether the corpus has a held-out split.
    """
    ways = WAYS[:directions]
    names = [f"{name}_{way}" for name in ("loss", "perplexity") for way in ways]
    names += ["train_loss", "learning_rate", "gradient_norm", "skipped_steps"]
    names += ["tokens_per_second", "mfu", "data_wait"]
    if has_held_out:
        shown = WAYS if directions > 1 else ways
        figures = [f"{way}_perplexity" for way in shown] + ["loss", "tokens", "bits_per_byte"]
        names += [f"{text}_{figure}" for text in ("valid", "whole") for figure in figures]
        names += ["averaged"]
    return names


class MetricsFile:
    """Appends metrics of a training to a file.

    On a local disk, a line can be read as soon as it is written, and `save` makes it durable. On a
    remote store, `save` uploads the whole file. `save` may be called by any thread.

    Args:
        path: path or URL of the file.
        step: step that training starts from; lines of later steps are removed.

    Raises:
        StorageError: from any method, if the file cannot be written.
    """

    def __init__(self, path: str, step: int) -> None:
        self._path, self._remote = path, storage.is_remote(path)
        self._saving = threading.Lock()
        self._lines = _lines_up_to(path, step)
        self._write_all()
        if not self._remote:
            self._lines = []

    def put(self, row: dict[str, Any]) -> None:
        """Append a line. Infinity and NaN, which JSON does not have, become null.

        Args:
            row: JSON values by name, among them "step".
        """
        line = json.dumps({key: _finite(value) for key, value in row.items()})
        if self._remote:
            self._lines.append(line)
            return
        check_write(storage.absolute(self._path))
        with report_write_errors(self._path), open(storage.local_path(self._path), "a") as file:
            file.write(f"{line}\n")

    def save(self) -> None:
        """Make all lines durable."""
        if self._remote:
            # An older state of the file must not replace a newer one.
            with self._saving:
                self._write_all()
            return
        with report_write_errors(self._path), open(storage.local_path(self._path), "a") as file:
            os.fsync(file.fileno())

    def _write_all(self) -> None:
        storage.write_bytes(self._path, "".join(f"{line}\n" for line in self._lines).encode())


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows_up_to(path: str, step: int) -> list[dict[str, Any]]:
    """Return the rows of a file up to and including a step; an empty list if there is no file."""
    return [json.loads(line) for line in _lines_up_to(path, step)]


def held_out_losses(metrics: Sequence[Row]) -> list[tuple[int, float]]:
    """Return (step, mean held-out loss per token in nats over the directions) of each evaluation."""
    return _losses(metrics, "valid_{}_perplexity", math.log)


def training_losses(metrics: Sequence[Row]) -> list[tuple[int, float]]:
    """Return (step, mean training loss per token in nats over the directions) of each row with a loss."""
    return _losses(metrics, "loss_{}", float)


def _losses(
    metrics: Sequence[Row], key: str, nats: Callable[[float], float]
) -> list[tuple[int, float]]:
    found = []
    for row in metrics:
        ways = [row.get(key.format(way)) for way in ("forward", "backward")]
        losses = [nats(one) for one in ways if one is not None and math.isfinite(one)]
        if losses:
            found.append((int(row["step"]), sum(losses) / len(losses)))
    return found


def _lines_up_to(path: str, step: int) -> list[str]:
    lines = storage.read_bytes(path).split(b"\n") if storage.exists(path) else []
    return [line.decode() for line in lines if _step(line) <= step]


def _step(line: bytes) -> float:
    """Return the step of a line; infinity if the line is incomplete, as after a kill, or damaged."""
    try:
        # Not the parser's own guess of the encoding.
        return float(json.loads(line.decode())["step"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return math.inf
