"""Lightning's part of training: the Trainer, its processes, signals and held-out evaluation."""

import logging
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy

from lightning_modules.allocator import keep_memory
from lightning_modules.evaluation.held_out import HeldOut
from lightning_modules.evaluation.perplexity import evaluate
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.sizes import flops_per_token
from lightning_modules.training.best import is_last_step
from lightning_modules.training.best_checkpoint import BestCheckpoint
from lightning_modules.training.callbacks import Compute, Metrics, ProgressBar
from lightning_modules.training.checkpoints import Checkpoints
from lightning_modules.training.datamodule import TokenShardDataModule
from lightning_modules.training.distribution import lost_process_reported, sum_over_ranks
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.local_group import BACKEND as LOCAL
from lightning_modules.training.matmul_peak import matmul_peak
from lightning_modules.training.metrics_file import METRICS
from lightning_modules.training.shared_update import SharedUpdate
from pipeline.exhaustion import exhausted
from pipeline.stopping import STOP_SIGNALS, Stopped
from pipeline.training.cores import OwnCores
from pipeline.training.inputs import TrainingInputs
from pipeline.training.rendezvous import KnownProcesses, connected
from preprocess.errors import JobError
from preprocess.shards.held_out_windows import evaluation_windows
from preprocess.shards.stream import TokenStream, boundary_ids

HELD_OUT_ROWS, HELD_OUT_UNROLL = 16, 64
"""Rows and window length in tokens of the held-out evaluation during training."""


def fit(
    inputs: TrainingInputs,
    module: LitBiLM,
    loggers: Sequence[Logger],
    bar: ProgressBar,
    warn: Callable[[str], None] = lambda _: None,
) -> None:
    """Train from the step of ``module`` to the last step. Collective: every rank must call it.

    Args:
        inputs: the inputs of the training; its checkpoint and initial weights are released.
        module: the module to train, in place.
        loggers: loggers for rank 0.
        bar: the progress bar.
        warn: called with each warning.

    Raises:
        Stopped: a signal stopped the training, after its step was saved.
        UserError: reading or writing fails, the processes do not meet, or one of them is lost.
    """
    train, share = inputs.config.train, inputs.share
    if is_last_step(train, module.step, module.held_out_losses):
        return
    with _quiet():
        gpu = inputs.device.type == "cuda"
        data = TokenShardDataModule(inputs.windows, inputs.maker(), train, share, module.step, gpu)
        best = None if share.rank else BestCheckpoint(inputs.place.work, module.step, warn)
        metrics = Metrics(
            inputs.place.new_file(METRICS),
            *(bar, data.loader, _compute(inputs), _held_out(inputs), best),
        )
        # The module has copies. They take as much memory as the weights and the optimiser state.
        inputs.checkpoint = inputs.initial = None
        processes, backend = inputs.processes, _backend(inputs)
        if share.world > 1 and backend == LOCAL:
            module.make_update = SharedUpdate
        cores = OwnCores(processes)
        checkpoints = Checkpoints(inputs.place.work, train, metrics.save)
    place = inputs.place
    purpose = f"{place.work} {train.rows} {train.row_passes} {module.step}"
    work = (inputs.config, place.folder, place.work)
    with (
        _quiet(),
        _memory_advice(),
        connected(processes, backend, inputs.device, purpose, work),
        lost_process_reported(share.world),
    ):
        trainer = pl.Trainer(
            accelerator="gpu" if gpu else "cpu",
            devices=share.world // train.num_nodes,
            num_nodes=train.num_nodes,
            strategy=_strategy(backend) if share.world > 1 else "auto",
            plugins=[KnownProcesses(processes)],
            max_epochs=1,
            logger=list(loggers),
            callbacks=[*([] if gpu else [cores]), metrics, checkpoints],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        # Lightning's SIGTERM handler waits for the other processes, which may be waiting for this
        # one. Our handler only sets a flag.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        try:
            with keep_memory(), _stoppable(checkpoints):
                trainer.fit(module, data)
        finally:
            cores.restore()


class _SharedMemory(DDPStrategy):
    """DDP's processes without its wrapper: `SharedUpdate` synchronises them."""

    def _setup_model(self, model: torch.nn.Module) -> torch.nn.Module:  # type: ignore[override]
        return model


def _backend(inputs: TrainingInputs) -> str:
    if inputs.device.type == "cuda":
        return "nccl"
    return LOCAL if inputs.config.train.num_nodes == 1 else "gloo"


def _strategy(backend: str) -> DDPStrategy:
    if backend == LOCAL:
        return _SharedMemory(process_group_backend=LOCAL)
    return DDPStrategy(
        process_group_backend=backend,
        gradient_as_bucket_view=True,
        broadcast_buffers=False,  # they are the same on every rank
    )


def _compute(inputs: TrainingInputs) -> Compute:
    dtype = torch.bfloat16 if inputs.bf16 else torch.float32
    flops = flops_per_token(
        inputs.config.model, inputs.counts, inputs.cutoffs, inputs.spelled_types
    )
    return Compute(flops, matmul_peak(inputs.device, dtype) * inputs.share.world)


def _held_out(inputs: TrainingInputs) -> Callable[[BiLMNetwork], dict[str, Any]] | None:
    """Return a function that evaluates a network on the held-out split; None if the split is empty.

    The function is collective: every rank must call it, and evaluates some of the rows.
    """
    shards, train, share = inputs.corpus.shards("valid"), inputs.config.train, inputs.share
    if not shards:
        return None
    stream, text = TokenStream(shards, train.boundary), HeldOut.of(shards)

    def evaluate_held_out(network: BiLMNetwork) -> dict[str, Any]:
        result = evaluate(
            network,
            evaluation_windows(stream, HELD_OUT_ROWS, HELD_OUT_UNROLL, (share.rank, share.world)),
            text,
            document_starts=boundary_ids(train.boundary) if train.reset_state else None,
            encode=inputs.encode,
            reduce=sum_over_ranks,
        )
        figures = result.figures()
        shown = ("forward_perplexity", "backward_perplexity", "average_perplexity", "bits_per_byte")
        return {"nats": result.loss, **{name: figures[name] for name in shown}}

    return evaluate_held_out


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Lightning's log messages: what matters is raised or shown by biloom."""
    for name in ("pytorch_lightning", "lightning_fabric", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Its advice (loader workers, a missing scheduler call) does not fit here.
        warnings.simplefilter("ignore")
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
