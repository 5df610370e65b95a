"""Loggers besides metrics.jsonl: Weights & Biases and TensorBoard."""

import importlib.util
import json
import math
import netrc
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlparse

from pytorch_lightning.loggers import Logger

from lightning_modules.models.checkpoint_file import CHECKPOINT
from pipeline.config.load import dump_config
from pipeline.config.schema import Config, TrackingConfig
from pipeline.console import Console
from pipeline.lifecycle.inputs import stage_folder
from pipeline.lifecycle.stage import Made, StageError, StageFolder
from pipeline.training.tracking_requirements import check_tracking
from preprocess.files import storage
from preprocess.files.manifest import NAME, read_manifest

HOST = "https://api.wandb.ai"
"""wandb's server, unless WANDB_BASE_URL is set."""

UPLOADED_BYTES = 1 << 30
"""A larger checkpoint is not uploaded to wandb, which gets a reference to it instead."""

SAVED_SECONDS = 30.0
"""Seconds between flushes of TensorBoard's event file."""

Row = Mapping[str, Any]


class WandbLogger(Logger):
    """Logs the metrics of a training step under the same step of wandb.

    wandb rejects steps that it has already seen, so rows up to the resumed step are skipped. They
    would be the same, because a resumed training repeats its steps exactly.
    """

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str:
        return str(self.run.id)

    def log_metrics(self, metrics: Row, step: int | None = None) -> None:
        assert step is not None
        if step >= self.run.starting_step:
            self.run.log(_finite(metrics), step=step)

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        """Do nothing: wandb gets the config when the run starts."""


class TensorBoardLogger(Logger):
    """Writes TensorBoard event files into ``folder``, which is emptied first."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        # Not SummaryWriter: it writes in a thread, whose queue does not survive a fork.
        from tensorboardX.event_file_writer import EventsWriter

        storage.remove_tree(folder)
        path = storage.local_path(folder)
        path.mkdir(parents=True)
        self._writer: Any = EventsWriter(str(path / "events"))
        self._saved = time.monotonic()

    @property
    def name(self) -> str:
        return "tensorboard"

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: Row, step: int | None = None) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        row = _finite(metrics).items()
        values = [Summary.Value(tag=key, simple_value=value) for key, value in row]
        summary = Summary(value=values)
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._saved > SAVED_SECONDS:
            self.save()

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        """Do nothing: config.yaml is beside the event files."""

    def save(self) -> None:
        self._writer.flush()
        self._saved = time.monotonic()

    def finalize(self, status: str) -> None:
        if self._writer:
            self._writer.close()
        self._writer = None


def _finite(row: Row) -> dict[str, float]:
    return {
        key: value
        for key, value in row.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def make_loggers(
    config: Config, place: StageFolder, console: Console, history: Iterable[Row]
) -> list[Logger]:
    """Return the loggers that the config enables, each with the history logged; for rank 0 only.

    Args:
        config: the config.
        place: the folder of the train stage.
        console: where the state of wandb is printed.
        history: rows of metrics.jsonl, each with its ``step``, up to the resumed step. They are
            logged again because a killed process may have logged fewer or more rows than that, and
            because `wandb sync` keeps only the last of several offline runs with one id.

    Raises:
        StageError: wandb cannot start, for example because its key is wrong; or TensorBoard is
            enabled and its files cannot be written.
    """
    check_tracking(config)
    loggers: list[Logger] = []
    if config.tracking.tensorboard:
        loggers.append(TensorBoardLogger(place.file("tensorboard")))
    mode, line = wandb_mode(config.tracking)
    console.line(line)
    if mode is not None:
        loggers.append(_wandb(config, place, mode, console))
    for row in history:
        for logger in loggers:
            logger.log_metrics({k: v for k, v in row.items() if k != "step"}, row["step"])
    for logger in loggers:
        logger.save()
    return loggers


def wandb_mode(tracking: TrackingConfig) -> tuple[str | None, str]:
    """Return "online", "offline" or None, and a line for the console that says why."""
    mode = os.environ.get("WANDB_MODE")
    if tracking.wandb == "off" or mode == "disabled":
        return None, "wandb: off"
    offline = tracking.wandb == "offline" or mode in ("offline", "dryrun")
    if not offline and not _has_key():
        return (
            None,
            "wandb: off, no key found (`wandb login` sets one); metrics are in metrics.jsonl",
        )
    if importlib.util.find_spec("wandb") is None:
        return None, "wandb: off, not installed (pip install 'biloom[wandb]')"
    if offline:
        return "offline", "wandb: offline (`wandb sync` uploads the run later)"
    return "online", "wandb: on"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", HOST)).netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _wandb(config: Config, place: StageFolder, mode: str, console: Console) -> WandbLogger:
    import wandb

    path = place.file(
        "wandb.json"
    )  # kept after training ends, because train.steps can be raised later
    if not storage.exists(path):
        storage.write_bytes(path, json.dumps({"id": secrets.token_hex(4)}).encode())
    try:
        run = wandb.init(
            project=config.tracking.project,
            name=config.tracking.name,
            id=json.loads(storage.read_bytes(path))["id"],
            resume="allow",
            reinit="finish_previous",
            dir="." if storage.is_remote(place.folder) else storage.local_path(place.folder),
            settings=wandb.Settings(console="off", silent=True, mode=mode),
        )
        run.config.update({"config": dump_config(config)}, allow_val_change=True)
    except wandb.Error as error:
        raise StageError(
            f"wandb cannot start ({error}); fix that, or set tracking.wandb to offline or off"
        ) from error
    try:
        _log_corpus(run, stage_folder(config, "prepare", config.train.corpus), mode)
    except (wandb.Error, ValueError) as error:
        console.line(f"wandb: the corpus manifest was not logged ({error}); training continues")
    return WandbLogger(run)


def _log_corpus(run: Any, folder: str, mode: str) -> None:
    """Log the corpus manifest as an input of the run; offline as an output, as wandb requires."""
    import wandb

    content = read_manifest(folder, "prepare").content
    artifact = wandb.Artifact(
        "corpus", type="corpus", metadata={"content": content, "folder": folder}
    )
    with artifact.new_file(NAME, "wb") as file:
        file.write(storage.read_bytes(storage.join(folder, NAME)))
    (run.use_artifact if mode == "online" else run.log_artifact)(artifact)


def log_checkpoint_artifact(loggers: Sequence[Logger], place: StageFolder, made: Made) -> None:
    """Log the trained checkpoint to wandb as an output of the run, and close all loggers.

    A checkpoint in a store, or larger than `UPLOADED_BYTES`, is logged as a reference.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.run.log_artifact(_checkpoint_artifact(logger.version, place, made))
            logger.run.finish()
        logger.finalize("success")


def _checkpoint_artifact(run: str, place: StageFolder, made: Made) -> Any:
    import wandb

    (record,) = (file for file in made.files if file.name == CHECKPOINT)
    path = place.file(CHECKPOINT)
    metadata = {"content": made.content, "xxh128": record.xxh128, "path": path}
    metadata |= {key: made.details[key] for key in ("steps", "tokens", "corpus")}
    artifact = wandb.Artifact(f"model-{run}", type="model", metadata=metadata)
    if storage.is_remote(path):
        artifact.add_reference(path, name=CHECKPOINT, checksum=False)
    elif record.bytes > UPLOADED_BYTES:
        url = storage.local_path(path).absolute().as_uri()
        artifact.add_reference(url, name=CHECKPOINT, checksum=False)
    else:
        artifact.add_file(str(storage.local_path(path)), policy="immutable")
    return artifact
