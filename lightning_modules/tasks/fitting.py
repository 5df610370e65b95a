"""Training of a head by Lightning: early stopping, the best weights, and exact resume.

Random numbers of a step depend on the seed and the step only, and the order of an epoch on the seed and
the epoch only. A training that was killed continues from its last epoch with the same results.
"""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_modules.models.checkpoint_file import CheckpointError, read_checkpoint
from lightning_modules.quiet import quiet
from lightning_modules.random_state import seeded
from lightning_modules.tasks.epoch_batches import EpochBatches as EpochBatches
from lightning_modules.tasks.epoch_batches import loader_of as loader_of
from lightning_modules.tasks.features import Progress
from lightning_modules.tasks.threads import module_threads
from lightning_modules.training.checkpoints import CheckpointFiles
from preprocess.errors import UserError

LOGGERS = ("pytorch_lightning", "lightning_fabric")
"""Loggers of Lightning, whose advice, such as more workers for a loader, does not fit here."""

LAST, BEST = "last", "best"
SCORE = "dev_score"
"""Name under which a module logs the score that chooses the best epoch."""


class FitError(UserError):
    """Raised if a training cannot be resumed, or diverges."""


@dataclass(frozen=True)
class FitSettings:
    """Settings of a training.

    Attributes:
        epochs: largest number of passes over the training texts.
        patience: training ends after this many epochs without a better score.
        seed: seed of the random numbers, below 2^32.
        clip_norm: largest norm of the gradient.
        mode: "max" if a higher `SCORE` is better, otherwise "min".
        identity: a hash of the data and of the other settings. A folder of another identity is not
            resumed.
        device: "cpu", "cuda", or "auto": a GPU if there is one.
    """

    epochs: int
    patience: int
    seed: int
    clip_norm: float = 5.0
    mode: Literal["max", "min"] = "max"
    identity: str = ""
    device: Literal["auto", "cpu", "cuda"] = "auto"


class FitResult(NamedTuple):
    """A finished training.

    Attributes:
        state: the weights of the best epoch, on the CPU.
        best_epoch: the epoch with the best score, counted from 1.
        history: the figures that the module logged in each epoch.
        stopped_early: whether the score had not become better for too long.
    """

    state: dict[str, Tensor]
    best_epoch: int
    history: tuple[Mapping[str, float], ...]
    stopped_early: bool


def fit(
    module: pl.LightningModule,
    train: "DataLoader[Any]",
    dev: "DataLoader[Any]",
    settings: FitSettings,
    folder: Path,
    progress: Progress | None = None,
) -> FitResult:
    """Train a module and return the weights of its best epoch.

    The same call with the folder of a training that was killed continues from the last finished
    epoch, with the same result on the same machine. The device must be the same, because it changes the
    order of sums, and for a network with large products the number of threads.

    Args:
        module: the module. It logs `SCORE` in its validation epochs; a missing or infinite score ends
            the training.
        train: loader of the training batches; see `lightning_modules.tasks.epoch_batches.loader_of`.
        dev: loader of the dev batches.
        settings: see `FitSettings`.
        folder: local folder of the checkpoints; created.
        progress: set to the number of finished batches of all epochs.

    Raises:
        FitError: if the folder holds the training of other data or settings, its checkpoints are
            damaged, or the loss is NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last, best = (str(folder.resolve() / f"{name}.ckpt") for name in (LAST, BEST))
    state = _read(last) if Path(last).exists() else None
    watch = _Watch(settings, progress, len(train))
    stop = EarlyStopping(
        SCORE, patience=settings.patience, mode=settings.mode, check_on_train_epoch_end=True
    )
    if state is not None:
        _check(state, watch, settings, folder)
        _move(state, folder)
    if state is None or not _has_ended(state, stop, settings):
        saved = partial(
            ModelCheckpoint,
            dirpath=folder.resolve(),
            save_on_train_epoch_end=True,
            enable_version_counter=False,
            save_top_k=1,
        )
        # The best weights are written first, because the last checkpoint names them.
        kept = [saved(filename=BEST, monitor=SCORE, mode=settings.mode), saved(filename=LAST)]
        device = _device(settings)
        batches = train.sampler
        assert isinstance(batches, EpochBatches), "made by loader_of"
        threads = module_threads(module, batches.size, float(batches.lengths.mean()))
        with quiet(*LOGGERS), _stoppable(), seeded(settings.seed, device), threads:
            trainer = pl.Trainer(
                accelerator="gpu" if device.type == "cuda" else "cpu",
                devices=1,
                max_epochs=settings.epochs,
                gradient_clip_val=settings.clip_norm,
                num_sanity_val_steps=0,
                callbacks=[watch, stop, *kept],
                plugins=[CheckpointFiles(state), LightningEnvironment()],
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
            trainer.fit(module, train, dev, ckpt_path=last if state else None)
        state = _read(last)
    chosen = _read(best)
    figures = state["callbacks"][watch.state_key]["history"]
    stopped = state["callbacks"][stop.state_key]["wait_count"] >= settings.patience
    return FitResult(chosen["state_dict"], chosen["epoch"] + 1, tuple(figures), stopped)


class _Watch(pl.Callback):
    """Seeds each step, records the figures of each epoch, and shows the progress."""

    def __init__(self, settings: FitSettings, progress: Progress | None, batches: int) -> None:
        self._settings, self._progress, self._batches = settings, progress, batches
        self._history: list[dict[str, float]] = []
        self._note = ""

    def state_dict(self) -> dict[str, Any]:
        return {"identity": self._settings.identity, "history": self._history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._history = list(state["history"])

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int
    ) -> None:
        torch.manual_seed(_step_seed(self._settings.seed, trainer.global_step))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
    ) -> None:
        loss = outputs["loss"]
        if not torch.isfinite(loss):
            raise FitError(
                f"epoch {trainer.current_epoch + 1}: the loss is {loss.item()}; use a lower learning rate"
            )
        if self._progress:
            self._progress.update(trainer.current_epoch * self._batches + index + 1, self._note)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        figures = {name: value.item() for name, value in sorted(trainer.callback_metrics.items())}
        self._history.append(figures)
        self._note = f"epoch {trainer.current_epoch + 1}, dev {figures[SCORE]:.4f}"


def _step_seed(seed: int, step: int) -> int:
    return int.from_bytes(blake2b(f"{seed} {step}".encode(), digest_size=7).digest(), "little")


def _device(settings: FitSettings) -> torch.device:
    gpu = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    return torch.device("cuda", 0) if gpu else torch.device("cpu")


def _read(path: str) -> dict[str, Any]:
    try:
        return read_checkpoint(path)
    except CheckpointError as error:
        reason = str(error).partition("; ")[0]
        folder = str(Path(path).parent)
        raise FitError(f"{reason}; delete {folder} to train again from the start") from error


def _check(state: Mapping[str, Any], watch: _Watch, settings: FitSettings, folder: Path) -> None:
    """Raise FitError if a checkpoint is of a training on other data or with other settings."""
    if state["callbacks"].get(watch.state_key, {}).get("identity") != settings.identity:
        raise FitError(
            f"{folder} holds an unfinished training with other texts, labels or settings; run the former "
            "command again to finish it, or delete the folder to start a new one"
        )


def _move(state: dict[str, Any], folder: Path) -> None:
    """Change the paths in a checkpoint if its folder was moved; Lightning would forget the best score."""
    path = str(folder.resolve())
    for values in state["callbacks"].values():
        if former := values.get("dirpath"):
            values["dirpath"] = path
            for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
                values[name] = values[name].replace(former, path)
            models = values["best_k_models"].items()
            values["best_k_models"] = {k.replace(former, path): v for k, v in models}


def _has_ended(state: Mapping[str, Any], stop: EarlyStopping, settings: FitSettings) -> bool:
    waited = state["callbacks"][stop.state_key]["wait_count"]
    return bool(state["epoch"] + 1 >= settings.epochs or waited >= settings.patience)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Raise the KeyboardInterrupt that Lightning turns into SystemExit, and restore its handler."""
    former = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, former)
        raise error.__context__ or error from None
