"""Lightning's part of training: the Trainer, its processes, signals and held-out evaluation."""

import logging
import signal
import threading
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
from lightning_modules.training.callbacks import Compute, Metrics, ProgressBar
from lightning_modules.training.checkpoints import Checkpoints
from lightning_modules.training.datamodule import TokenShardDataModule
from lightning_modules.training.distribution import Agreement, lost_process_reported, sum_over_ranks
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.local_group import BACKEND as LOCAL
from lightning_modules.training.matmul_peak import matmul_peak
from lightning_modules.training.metrics_file import METRICS
from lightning_modules.training.shared_update import SharedUpdate
from pipeline.training.cores import OwnCores
from pipeline.training.inputs import TrainingInputs
from preprocess.errors import UserError
from preprocess.shards.held_out_windows import evaluation_windows
from preprocess.shards.stream import TokenStream, boundary_ids

HELD_OUT_ROWS, HELD_OUT_UNROLL = 16, 64
"""Rows and window length in tokens of the held-out evaluation during training."""


def fit(
    inputs: TrainingInputs, module: LitBiLM, loggers: Sequence[Logger], bar: ProgressBar
) -> None:
    """Train from the step of ``module`` to the last step. Collective: every rank must call it.

    Args:
        inputs: the inputs of the training; its checkpoint and initial weights are released.
        module: the module to train, in place.
        loggers: loggers for rank 0.
        bar: the progress bar.

    Raises:
        KeyboardInterrupt: a signal stopped the training, after its step was saved.
        UserError: reading or writing fails, or gradients are no longer finite.
    """
    train, share = inputs.config.train, inputs.share
    if module.step == train.steps:
        return
    with _quiet():
        gpu = inputs.device.type == "cuda"
        data = TokenShardDataModule(inputs.windows, inputs.maker(), train, share, module.step, gpu)
        metrics = Metrics(
            inputs.place.new_file(METRICS), bar, data.loader, _compute(inputs), _held_out(inputs)
        )
        # The module has copies. They take as much memory as the weights and the optimiser state.
        inputs.checkpoint = inputs.initial = None
        strategy = _strategy(inputs) if share.world > 1 else "auto"
        if isinstance(strategy, _SharedMemory):
            module.make_update = SharedUpdate
        cores = OwnCores()
        checkpoints = Checkpoints(inputs.place.work, train, metrics.save)
        trainer = pl.Trainer(
            accelerator="gpu" if gpu else "cpu",
            devices=share.world // train.num_nodes,
            num_nodes=train.num_nodes,
            strategy=strategy,
            max_epochs=1,
            logger=list(loggers),
            callbacks=[_SameStep(), *([] if gpu else [cores]), metrics, checkpoints],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        assert trainer.global_rank == share.rank, "Lightning assigned another rank"
        # Lightning's SIGTERM handler waits for the other processes, which may be waiting for this
        # one. Our handler only sets a flag.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        try:
            with keep_memory(), _stoppable(checkpoints), lost_process_reported(share.world):
                trainer.fit(module, data)
        except BaseException:
            _end_processes(trainer)
            raise
        finally:
            cores.restore()
        if torch.distributed.is_initialized():
            # Otherwise its threads sometimes abort the process when Python exits.
            torch.distributed.destroy_process_group()


class _SharedMemory(DDPStrategy):
    """DDP's processes without its wrapper: `SharedUpdate` synchronises them."""

    def _setup_model(self, model: torch.nn.Module) -> torch.nn.Module:  # type: ignore[override]
        return model


def _strategy(inputs: TrainingInputs) -> DDPStrategy:
    gpu = inputs.device.type == "cuda"
    if not gpu and inputs.config.train.num_nodes == 1:
        return _SharedMemory(process_group_backend=LOCAL)
    return DDPStrategy(
        process_group_backend="nccl" if gpu else "gloo",
        gradient_as_bucket_view=True,
        broadcast_buffers=False,  # they are the same on every rank
    )


class _SameStep(pl.Callback):
    """Checks that all ranks start at the same step."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LitBiLM)
        newest, oldest = Agreement().largest(module.step, -module.step)
        if newest != -oldest:
            raise UserError(
                f"the processes of this training start at different steps ({-oldest:,} and "
                f"{newest:,}); all machines must share the same run.output"
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
def _stoppable(checkpoints: Checkpoints) -> Iterator[None]:
    """Let SIGINT or SIGTERM stop training after the running step, and a second SIGINT at once.

    Raises:
        KeyboardInterrupt: a signal stopped the training.
    """

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        checkpoints.stop()

    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit as error:
        # Lightning exits on an interrupt, with code 1, or even 0 after SIGTERM.
        raise KeyboardInterrupt from error
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _end_processes(trainer: pl.Trainer) -> None:
    """Kill the other processes of this machine, which would wait for this one forever."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            # Lightning's thread would kill this process, too, when the others end.
            thread._run = lambda: True  # type: ignore[attr-defined]
    for process in getattr(trainer.strategy.launcher, "procs", ()):
        process.kill()
        process.wait()
