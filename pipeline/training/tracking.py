"""Loggers besides metrics.jsonl: Weights & Biases and TensorBoard. None of their failures ends a training."""

import json
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pytorch_lightning.loggers import Logger

from lightning_modules.models.checkpoint_file import CHECKPOINT
from lightning_modules.training.metrics_file import metric_names
from pipeline.config.schema import Config
from pipeline.config.secrets import without_hidden_settings
from pipeline.console import Console
from pipeline.lifecycle.inputs import stage_folder
from pipeline.lifecycle.stage import Made, StageFolder
from pipeline.training.tracking_requirements import check_tracking
from pipeline.training.wandb_process import (
    FINISH_SECONDS,
    STOP_SECONDS,
    UPLOADED_BYTES_A_SECOND,
    WandbProcess,
)
from pipeline.training.wandb_settings import wandb_mode, wandb_setting
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import NAME, read_manifest

UPLOADED_BYTES = 1 << 30
"""A larger checkpoint is not uploaded to wandb, which gets a reference to it instead."""

SAVED_SECONDS = 30.0
"""Seconds between flushes of TensorBoard's event file."""

Row = Mapping[str, Any]


class WandbLogger(Logger):
    """Passes metrics to the process of wandb, and prints the notes of that process."""

    def __init__(self, process: WandbProcess, console: Console) -> None:
        super().__init__()
        self.process = process
        self._console = console
        self._is_told = False

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str:
        return self.process.run.get("id", "")

    def log_metrics(self, metrics: Row, step: int | None = None) -> None:
        self.process.send(do="log", row=_finite(metrics), step=_steps_done(step))
        self.tell()

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        """Do nothing: wandb gets the config when the run starts."""

    def finalize(self, status: str) -> None:
        # After a success, the checkpoint is still to be logged.
        if status != "success":
            self.process.end(1, STOP_SECONDS)
            self.tell()

    def finish(self, uploaded: int) -> None:
        """Finish the run, and wait for its upload.

        Args:
            uploaded: bytes of the checkpoint that is uploaded.
        """
        seconds = FINISH_SECONDS + uploaded / UPLOADED_BYTES_A_SECOND
        waiting = f"waiting for wandb to upload, {seconds:.0f} seconds at most"
        self.process.end(0, seconds, lambda: self._console.line(waiting))
        self.tell()

    def tell(self) -> None:
        """Print the notes of the process, each once."""
        for note in self.process.notes():
            self._console.warn(f"wandb: {note}")
        if self.process.failed and not self._is_told:
            self._is_told = True
            folder = self.process.run.get("folder")
            kept = f"; `wandb sync {folder}` uploads what it has" if folder else ""
            self._console.warn(
                f"wandb: off, {self.process.failed}; metrics are in metrics.jsonl{kept}"
            )


class TensorBoardLogger(Logger):
    """Writes TensorBoard event files into ``folder``, from which former event files are removed first."""

    def __init__(self, folder: str, console: Console) -> None:
        super().__init__()
        self._console = console
        self._saved = time.monotonic()
        self._writer: Any = None
        self._careful(lambda: self._open(folder))

    @property
    def name(self) -> str:
        return "tensorboard"

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: Row, step: int | None = None) -> None:
        if self._writer:
            self._careful(lambda: self._write(metrics, _steps_done(step)))

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        """Do nothing: config.yaml is beside the event files."""

    def save(self) -> None:
        if self._writer:
            self._careful(self._writer.flush)
        self._saved = time.monotonic()

    def finalize(self, status: str) -> None:
        if self._writer:
            self._careful(self._writer.close)
        self._writer = None

    def _open(self, folder: str) -> None:
        # Not SummaryWriter: it writes in a thread, whose queue does not survive a fork.
        from tensorboardX.event_file_writer import EventsWriter

        path = storage.local_path(folder)
        path.mkdir(parents=True, exist_ok=True)
        for former in path.glob("events.*"):
            former.unlink()
        self._writer = EventsWriter(str(path / "events"))

    def _write(self, metrics: Row, step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        row = _finite(metrics).items()
        values = [Summary.Value(tag=key, simple_value=value) for key, value in row]
        summary = Summary(value=values)
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._saved > SAVED_SECONDS:
            self.save()

    def _careful(self, work: Callable[[], object]) -> None:
        """Call ``work``; if it fails, say so once and write no more."""
        try:
            work()
        except Exception as error:
            self._console.warn(f"tensorboard: off, {_reason(error)}; metrics are in metrics.jsonl")
            writer, self._writer = self._writer, None
            with suppress(Exception):
                writer.close()


def _steps_done(step: int | None) -> int:
    """Return the number of steps done, as in metrics.jsonl, after a step that is counted from 0."""
    return 0 if step is None else step + 1


def _finite(row: Row) -> dict[str, float]:
    """Return the metrics that loggers can show. Lightning adds "epoch", which is left out."""
    return {
        key: value
        for key, value in row.items()
        if key != "epoch" and isinstance(value, int | float) and math.isfinite(value)
    }


def make_loggers(
    config: Config, place: StageFolder, console: Console, history: Iterable[Row]
) -> list[Logger]:
    """Return the loggers that the config enables, each with the history logged; for rank 0 only.

    Args:
        config: the config.
        place: the folder of the train stage.
        console: where the state of the loggers is printed, now and later.
        history: rows of metrics.jsonl, each with its ``step``, up to the resumed step. They are
            logged again because a killed process may have logged fewer or more rows than that, and
            because `wandb sync` keeps only the last of several offline runs with one id.
    """
    check_tracking(config)
    loggers: list[Logger] = []
    if config.tracking.tensorboard:
        loggers.append(TensorBoardLogger(_event_folder(config, place), console))
    mode, line = wandb_mode(config.tracking)
    console.line(line)
    if mode is not None:
        loggers.append(_wandb(config, place, mode, console))
    for row in history:
        for logger in loggers:
            logger.log_metrics({k: v for k, v in row.items() if k != "step"}, row["step"] - 1)
    for logger in loggers:
        logger.save()
    return loggers


def _event_folder(config: Config, place: StageFolder) -> str:
    """Return the folder of TensorBoard's event files, the same for a resumed training."""
    shared = config.tracking.tensorboard_folder
    if shared is None:
        return place.file("tensorboard")
    run = storage.absolute(config.run.output)
    return storage.join(shared, run.partition("://")[2].strip("/") or run.strip("/"))


def _wandb(config: Config, place: StageFolder, mode: str, console: Console) -> WandbLogger:
    folder = "." if storage.is_remote(place.folder) else str(storage.local_path(place.folder))
    options = {
        "project": config.tracking.project,
        "name": config.tracking.name,
        "id": _run_id(place, console),
        "dir": None if wandb_setting("dir") or wandb_setting("root_dir") else folder,
    }
    # A dictionary, so that runs are filtered and compared by each setting.
    settings = without_hidden_settings(config).model_dump(mode="json")
    corpus = stage_folder(config, "prepare", config.train.corpus)
    names = metric_names(config.model.direction_count, _has_held_out(corpus))
    start = {"mode": mode, "options": options, "config": settings, "metrics": names}
    logger = WandbLogger(WandbProcess(start), console)
    try:
        logger.process.send(**_corpus(corpus))
    except (OSError, UserError) as error:
        console.warn(f"wandb: the corpus manifest was not logged ({_reason(error)})")
    return logger


def _has_held_out(folder: str) -> bool:
    """Return True unless the corpus is known to have no held-out split."""
    with suppress(OSError, UserError):
        files = read_manifest(folder, "prepare").files
        return any(file.counts.get("split") == "valid" for file in files)
    return True


def _run_id(place: StageFolder, console: Console) -> str:
    """Return the id of the run, the same for a resumed training."""
    # Kept after training ends, because train.steps can be raised later.
    path = place.file("wandb.json")
    made = wandb_setting("run_id") or secrets.token_hex(4)
    try:
        known = str(json.loads(storage.read_bytes(path))["id"])
        if known == made or not wandb_setting("run_id"):
            return known
    except FileNotFoundError:
        pass
    except (OSError, UserError, ValueError, TypeError, KeyError) as error:
        console.warn(f"wandb: a new run, because {path} cannot be read ({_reason(error)})")
    try:
        storage.write_bytes(path, json.dumps({"id": made}).encode())
    except (OSError, UserError) as error:
        console.warn(f"wandb: a resumed training will be a new run ({_reason(error)})")
    return made


def _corpus(folder: str) -> dict[str, Any]:
    """Return the request that logs the corpus manifest as an input of the run."""
    return {
        "do": "artifact",
        "what": "corpus manifest",
        "is_input": True,
        "name": "corpus",
        "type": "corpus",
        "metadata": {"content": read_manifest(folder, "prepare").content, "folder": folder},
        "file": NAME,
        "content": storage.read_bytes(storage.join(folder, NAME)).decode(),
    }


def log_checkpoint_artifact(loggers: Sequence[Logger], place: StageFolder, made: Made) -> None:
    """Log the trained checkpoint to wandb as an output of the run, and close all loggers.

    A checkpoint in a store, or larger than `UPLOADED_BYTES`, is logged as a reference.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            request = _checkpoint(place, made)
            logger.process.send(**request)
            uploaded = made.files[0].bytes if "path" in request else 0
            logger.finish(uploaded)
        logger.finalize("success")


def _checkpoint(place: StageFolder, made: Made) -> dict[str, Any]:
    (record,) = (file for file in made.files if file.name == CHECKPOINT)
    path = place.file(CHECKPOINT)
    metadata = {"content": made.content, "xxh128": record.xxh128, "path": path}
    metadata |= {key: made.details[key] for key in ("steps", "tokens", "corpus")}
    request = {
        "do": "artifact",
        "what": "checkpoint",
        "is_input": False,
        "type": "model",
        "metadata": metadata,
        "file": CHECKPOINT,
    }
    if storage.is_remote(path):
        return {**request, "reference": path}
    local = storage.local_path(path).absolute()
    if record.bytes > UPLOADED_BYTES:
        return {**request, "reference": local.as_uri()}
    return {**request, "path": str(local)}


def _reason(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())
