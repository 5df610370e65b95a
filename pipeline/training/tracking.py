"""Metrics beside metrics.jsonl: Weights & Biases where it is wanted and can be had, TensorBoard."""

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

from lightning_modules.models.model_folder import CHECKPOINT
from pipeline.config.load import dump_config
from pipeline.config.schema import Config, TrackingConfig
from pipeline.console import Console
from pipeline.lifecycle.registry import stage_folder
from pipeline.lifecycle.stage import Made, StageError, StageFolder
from preprocess.files import storage
from preprocess.files.manifest import NAME, read_manifest

HOST = "https://api.wandb.ai"

UPLOADED_BYTES = 1 << 30
"""A larger checkpoint is named to wandb and stays where it is."""

SAVED_SECONDS = 30.0
"""Between writes of what TensorBoard is to show."""

Row = Mapping[str, Any]


class WandbLogger(Logger):
    """Figures of step s under wandb's own step s.

    wandb takes no step before its last. Where training goes on from an earlier one, what it has is
    kept and the same figures, for they are the same, are not sent again.
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
        """Nothing: the config is there from the start."""


class TensorBoardLogger(Logger):
    """Event files that TensorBoard reads, made anew in ``folder``."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        # Its SummaryWriter would write in a thread, fed by a queue that outlives a fork badly.
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
        """Nothing: config.yaml lies beside the event files."""

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
    """The loggers that are wanted and can be had, each with what was logged before; for rank 0.

    Args:
        history: rows of metrics.jsonl, each with its ``step``, up to the one that training goes on
            from. What they tell that a killed process did not come to write, or wrote beyond that
            step, would else be missing, or be there twice. Of several offline runs under one id,
            `wandb sync` keeps the last alone, so that one has to be whole.

    Raises:
        StageError: wandb does not start, as where the key is wrong; or TensorBoard's files are
            wanted and cannot be written.
    """
    loggers: list[Logger] = []
    if config.tracking.tensorboard:
        loggers.append(_tensorboard(place))
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


def _tensorboard(place: StageFolder) -> TensorBoardLogger:
    if storage.is_remote(place.folder):
        raise StageError(
            f"tracking.tensorboard writes local files only, and {place.folder} is in a store; set "
            "it to false (metrics.jsonl has the same)"
        )
    if importlib.util.find_spec("tensorboardX") is None:
        raise StageError(
            "tracking.tensorboard is true, but tensorboardX is not installed; pip install "
            "'biloom[tensorboard]', or set it to false"
        )
    return TensorBoardLogger(place.file("tensorboard"))


def wandb_mode(tracking: TrackingConfig) -> tuple[str | None, str]:
    """Either "online", "offline" or none, and a line that says why.

    Raises:
        StageError: the config asks for wandb offline, and it is not installed.
    """
    mode = os.environ.get("WANDB_MODE")
    if tracking.wandb == "off" or mode == "disabled":
        return None, "wandb: off"
    offline = tracking.wandb == "offline" or mode in ("offline", "dryrun")
    if not offline and not _has_key():
        return None, "wandb: off, no key found (`wandb login` sets one); metrics.jsonl has the same"
    if importlib.util.find_spec("wandb") is None:
        if tracking.wandb == "offline":
            raise StageError(
                "tracking.wandb is offline, but wandb is not installed; pip install "
                "'biloom[wandb]', or set it to off"
            )
        return None, "wandb: off, it is not installed (pip install 'biloom[wandb]')"
    if offline:
        return "offline", "wandb: offline (`wandb sync` sends it later)"
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

    path = place.file("wandb.json")  # beyond the training's end: it may be made longer
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
            f"wandb does not start ({error}); set tracking.wandb to offline or off, or mend that"
        ) from error
    try:
        _log_corpus(run, stage_folder(config, "prepare", config.train.corpus), mode)
    except (wandb.Error, ValueError) as error:
        console.line(f"wandb: did not take the corpus's manifest ({error}); training goes on")
    return WandbLogger(run)


def _log_corpus(run: Any, folder: str, mode: str) -> None:
    """The corpus's manifest as the run's input; as its output offline, where wandb knows no inputs."""
    import wandb

    content = read_manifest(folder, "prepare").content
    artifact = wandb.Artifact(
        "corpus", type="corpus", metadata={"content": content, "folder": folder}
    )
    with artifact.new_file(NAME, "wb") as file:
        file.write(storage.read_bytes(storage.join(folder, NAME)))
    (run.use_artifact if mode == "online" else run.log_artifact)(artifact)


def log_checkpoint_artifact(loggers: Sequence[Logger], place: StageFolder, made: Made) -> None:
    """Give the trained checkpoint to wandb as the run's output, and end all logging.

    A checkpoint in a store, or larger than `UPLOADED_BYTES`, is named and not sent.
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
