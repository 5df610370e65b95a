"""Lightning's part of training: the Trainer, its processes, signals and held-out evaluation."""

import logging
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.precision import MixedPrecision, Precision

from lightning_modules.allocator import keep_memory
from lightning_modules.matmul_peak import matmul_peak
from lightning_modules.models.checkpoint_writer import CheckpointWriter
from lightning_modules.sizes import flops_per_token
from lightning_modules.training.callbacks import Compute, Metrics, ProgressBar
from lightning_modules.training.checkpoints import CheckpointFiles, Checkpoints
from lightning_modules.training.datamodule import TokenShardDataModule
from lightning_modules.training.gradient_scale import GradientScaler
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.metrics_file import METRICS, Row
from lightning_modules.training.ranks.distribution import lost_process_reported
from lightning_modules.training.validation.final import FinalEvaluation
from lightning_modules.training.weights.best import BestCheckpoint, Patience, is_last_step
from pipeline.exhaustion import exhausted
from pipeline.stopping import STOP_SIGNALS, Stopped
from pipeline.training.device import DTYPES, tf32_products
from pipeline.training.inputs import TrainingInputs
from pipeline.training.rendezvous import connected
from pipeline.training.strategy import (
    KeepSigtermHandler,
    backend_of,
    environment_of,
    strategy_of,
)
from preprocess.errors import JobError
from preprocess.work.folder import checkpoint_file

SLOWER = r"(?s).*(cannot be captured in CUDA graphs|instead of fused kernels)"
"""Matches biloom's warnings about what makes training slower on a GPU."""


def fit(
    inputs: TrainingInputs,
    module: LitBiLM,
    loggers: Sequence[Logger],
    bar: ProgressBar,
    watch: Callable[[Row], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> None:
    """Train from the step of ``inputs`` to the last step. Collective: every rank must call it.

    Args:
        inputs: the inputs of the training; its checkpoint and initial weights are released.
        module: the module to train, in place.
        loggers: loggers for rank 0.
        bar: the progress bar.
        watch: called on rank 0 with each row of metrics.jsonl.
        warn: called on rank 0 with each warning.

    Raises:
        Stopped: a signal stopped the training, after its step was saved.
        UserError: reading or writing fails, the processes do not meet, or one of them is lost.
    """
    train, share = inputs.config.train, inputs.share
    if inputs.checkpoint and is_last_step(train, inputs.step, inputs.checkpoint["looks"]):
        module.on_load_checkpoint(inputs.checkpoint)
        module.load_state_dict(inputs.checkpoint["state_dict"])
        return
    place, gpu = inputs.place, inputs.device.type == "cuda"
    windows = train.steps * train.accumulate_steps
    with _quiet(warn):
        corpus, sample = inputs.corpus, inputs.sample
        data = TokenShardDataModule(corpus, train, inputs.tokenizer, windows, sample)
        metrics = Metrics(place.new_file(METRICS), bar, _compute(inputs), watch)
        resumed = None
        if inputs.checkpoint:
            resumed = checkpoint_file(place.work, inputs.step)
        writer = CheckpointWriter()
        checkpoints = Checkpoints(
            place.work, train, bool(inputs.corpus.shards("valid")), writer, metrics.save, warn
        )
        files = CheckpointFiles(inputs.checkpoint, checkpoints.write)
        best, patience = BestCheckpoint(place.work, warn, writer.write), Patience()
        final = FinalEvaluation(metrics.put)
        # The module has copies. They take as much memory as the weights and the optimiser state.
        inputs.checkpoint = inputs.initial = None
        processes, device = inputs.processes, inputs.device
    work = (inputs.config, place.folder, place.work)
    with (
        _quiet(warn),
        _memory_advice(),
        tf32_products(inputs.precision == "tf32"),
        connected(processes, backend_of(device), device, _purpose(inputs), work),
        lost_process_reported(share.world),
    ):
        trainer = pl.Trainer(
            accelerator="gpu" if gpu else "cpu",
            devices=share.world // train.num_nodes,
            num_nodes=train.num_nodes,
            strategy=strategy_of(processes, device, train.reduce_gradients),
            plugins=[environment_of(processes), files, _precision(inputs)],
            max_epochs=-1,
            max_steps=train.steps,
            accumulate_grad_batches=train.accumulate_steps,
            val_check_interval=train.evaluate_steps * train.accumulate_steps,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=train.log_steps,
            logger=list(loggers),
            callbacks=[KeepSigtermHandler(), metrics, best, patience, final, checkpoints],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        with keep_memory(), _stoppable(checkpoints):
            trainer.fit(module, data, ckpt_path=resumed)


def _purpose(inputs: TrainingInputs) -> str:
    """Return what the processes of a training must agree on."""
    train = inputs.config.train
    # A rank with another precision would average scaled gradients with unscaled ones.
    parts = (inputs.place.work, train.rows, train.row_passes, inputs.step, inputs.precision)
    return " ".join(map(str, parts))


def _precision(inputs: TrainingInputs) -> Precision:
    """Return Lightning's part of a precision. By its name, float16 would mean bf16 on CPUs."""
    device = inputs.device.type
    if inputs.precision == "float16":
        return MixedPrecision("16-mixed", device, GradientScaler(device))
    return MixedPrecision("bf16-mixed", device) if inputs.precision == "bf16" else Precision()


def _compute(inputs: TrainingInputs) -> Compute:
    flops = flops_per_token(
        inputs.config.model, inputs.counts, inputs.cutoffs, inputs.spelled_types
    )
    with tf32_products(inputs.precision == "tf32"):
        peak = matmul_peak(inputs.device, DTYPES[inputs.precision])
    return Compute(flops, peak * inputs.share.world)


@contextmanager
def _quiet(warn: Callable[[str], None]) -> Iterator[None]:
    """Suppress Lightning's log messages and warnings: what matters is raised or shown by biloom.

    Args:
        warn: called with each warning that matches `SLOWER`.
    """
    for name in ("pytorch_lightning", "lightning_fabric", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Its advice (loader workers, a missing scheduler call) does not fit here.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", SLOWER)
        warnings.showwarning = lambda message, *_, **__: warn(str(message))
        yield


@contextmanager
def _memory_advice() -> Iterator[None]:
    """Name the settings that need less memory, if an allocation fails.

    Raises:
        JobError: an allocation failed.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = exhausted(error)
        if not reason.startswith("memory"):
            raise
        raise JobError(
            f"{reason}; raise train.row_passes, which needs less memory for the same result, and run "
            "the same command again to resume. Or train again with a smaller train.rows, train.unroll "
            "or model"
        ) from error


@contextmanager
def _stoppable(checkpoints: Checkpoints) -> Iterator[None]:
    """Let each of `STOP_SIGNALS` stop training after the running step, and a second SIGINT at once.

    SIGUSR2 makes training save a checkpoint and continue.

    Raises:
        Stopped: a signal stopped the training.
    """

    def stop(number: int, frame: Any) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        checkpoints.stop(number)

    def save(number: int, frame: Any) -> None:
        checkpoints.save_soon()

    handlers: dict[signal.Signals, Any] = {
        **dict.fromkeys(STOP_SIGNALS, stop),
        signal.SIGUSR2: save,
    }
    former = {}
    for number, handler in handlers.items():
        # `pipeline.stopping` ignores SIGUSR2, and the user may ignore others, as with nohup.
        if number == signal.SIGUSR2 or signal.getsignal(number) is not signal.SIG_IGN:
            former[number] = signal.signal(number, handler)
    # A process that another one started has left them pending until here.
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        # Lightning exits on an interrupt, with code 1, or even 0 after SIGTERM.
        raise Stopped(checkpoints.stopped_by or signal.SIGINT) from error
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
