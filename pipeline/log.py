"""Messages on standard error: text for people or, with BILOOM_LOG=json, one JSON object per line."""

import json
import logging
import math
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from preprocess.errors import UserError, printable

VARIABLE = "BILOOM_LOG"
"""Environment variable that chooses the format: unset or empty for text, or `JSON`."""
JSON = "json"
METRICS = "BILOOM_METRICS"
"""Environment variable that names the metrics file, see `pipeline.progress`."""

Level = Literal["info", "warning", "error"]

_stage = ""
_writing = threading.Lock()


class LogError(UserError):
    """An environment variable for logs or metrics has a value that biloom does not know."""


def is_json() -> bool:
    """Return True if messages are to be JSON objects."""
    return os.environ.get(VARIABLE) == JSON


def check_log() -> None:
    """Check the format of messages.

    Raises:
        LogError: biloom does not know the format.
    """
    if (value := os.environ.get(VARIABLE, "")) not in ("", JSON):
        raise LogError(f"{VARIABLE}={value}: must be {JSON}, or unset for text")


def set_stage(name: str) -> None:
    """Set the stage that the following messages belong to."""
    global _stage
    _stage = name


def json_line(level: Level, message: str, fields: Mapping[str, Any] | None = None) -> str:
    """Return a message as a JSON object in one line, with secrets in URLs hidden.

    Its keys are "time" (UTC, ISO 8601), "level", "stage" (empty before the first one), "message", and
    those of ``fields``. Infinity and NaN, which JSON does not have, become null.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
    record = {"time": f"{now}Z", "level": level, "stage": _stage, "message": message}
    return json.dumps(_plain({**record, **(fields or {})}))


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {printable(str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, int | float | None) else printable(str(value))


def write_json(stream: TextIO, level: Level, message: str, fields: Mapping[str, Any]) -> None:
    """Write a message as a JSON object to ``stream``."""
    line = json_line(level, message, fields)
    with _writing:
        stream.write(f"{line}\n")
        stream.flush()


def error_line(message: str, code: int) -> str:
    """Return the line that reports the error with which the command ends."""
    return json_line("error", message, {"exit_code": code}) if is_json() else f"biloom: {message}"


def tell(
    message: str, level: Level = "warning", stream: TextIO | None = None, **fields: Any
) -> None:
    """Write a message to standard error: after "biloom: ", or as a JSON object.

    Args:
        message: the message.
        level: its level; text does not show it.
        stream: where it is written; None means ``sys.stderr``.
        fields: further fields of the JSON object.
    """
    stream = stream or sys.stderr
    if is_json():
        write_json(stream, level, message, fields)
    else:
        print(f"biloom: {message}", file=stream, flush=stream is not sys.stderr)


class _Handler(logging.Handler):
    """Writes the log records of libraries as JSON objects."""

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        try:
            tell(self.format(record), level, logger=record.name)
        except Exception:
            self.handleError(record)


@contextmanager
def libraries_logged() -> Iterator[None]:
    """With BILOOM_LOG=json, write the warnings and log records of libraries as JSON objects."""
    if not is_json():
        yield
        return

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        tell(str(message), category=category.__name__)

    root, handler = logging.getLogger(), _Handler(logging.WARNING)
    root.addHandler(handler)
    former, warnings.showwarning = warnings.showwarning, show
    try:
        yield
    finally:
        warnings.showwarning = former
        root.removeHandler(handler)
