"""Stage: token shards -> checkpoint."""

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from lightning_modules.callbacks import (
    Checkpoints,
    Metrics,
    StorageCheckpointIO,
    checkpoint_path,
    newest_checkpoint,
)
from lightning_modules.config import AdaptiveSoftmaxConfig, ModelConfig, TrainConfig
from lightning_modules.datamodule import TokenShardDataModule, training_stream
from lightning_modules.lit_bilm import LitBiLM
from lightning_modules.nn.adaptive_softmax import choose_cutoffs, predicted_speedup, ranks_of
from lightning_modules.pretrained import CHECKPOINT, tensors_hash
from pipeline.config import Config
from pipeline.console import Console, count
from pipeline.device import device_name, resolve_device
from pipeline.stage import Made, Place
from pipeline.stages import stage_folder
from pipeline.tracking import make_logger
from preprocess import storage
from preprocess.manifest import FileRecord, hash_file
from preprocess.token_shard import Corpus
from preprocess.token_stream import (
    TokenStream,
    TrainingWindows,
    boundary_ids,
    evaluation_windows,
)

METRICS = "metrics.jsonl"
LOOK_ROWS = 16


def make(config: Config, place: Place, console: Console) -> Made:
    train, model = config.train, config.model
    corpus = Corpus.open(stage_folder(config, "prepare", train.corpus))

    # Data: what every row reads at every step.
    windows = TrainingWindows(training_stream(corpus, train), train.rows, train.unroll)
    counts = _counts(corpus, train)
    ranks = ranks_of(counts)

    # Network: the cutoffs follow from the counts.
    cutoffs = resolve_cutoffs(model, train, counts)
    module = LitBiLM(model, train, corpus.vocabulary, cutoffs, torch.from_numpy(ranks))
    _tell_cutoffs(model, train, counts, cutoffs, console)
    size = sum(p.numel() for p in module.network.parameters())
    device = resolve_device(train.device)
    console.line(
        f"{count(size)} parameters on {device_name(device)}; {train.steps:,} steps of "
        f"{train.rows} x {train.unroll} tokens, {windows.passes(train.steps):.2f} passes"
    )
    module.network.to(device)
    console.line(module.network.recurrent.compile_cell(train.compile, train.rows))

    # Resume: everything that a step depends on is in the newest checkpoint.
    resume = newest_checkpoint(place.work)
    if resume:
        console.line(f"goes on from step {resume[1]:,}")

    logger = make_logger(config, place, console)
    checkpoints = Checkpoints(place.work, train.checkpoint_steps, train.checkpoint_minutes)
    with console.bar("train", train.steps) as bar, _quiet():
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_steps=train.steps,
            logger=logger,
            callbacks=[
                Metrics(
                    place.file(METRICS),
                    train.log_steps,
                    train.rows * train.unroll,
                    bar,
                    partial(_held_out, corpus, train) if corpus.shards("valid") else None,
                    train.evaluate_steps,
                ),
                checkpoints,
            ],
            plugins=[StorageCheckpointIO()],
            log_every_n_steps=train.log_steps,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        data = TokenShardDataModule(windows, train, ranks, cutoffs)
        with _stoppable(checkpoints):
            trainer.fit(module, data, ckpt_path=resume and resume[0], weights_only=True)

    storage.copy(checkpoint_path(place.work, train.steps), place.file(CHECKPOINT))
    details = {
        "model": model.model_dump(),
        "vocabulary": corpus.vocabulary,
        "cutoffs": cutoffs,
        "boundary": train.boundary,
        "steps": train.steps,
        "tokens": train.steps * train.rows * train.unroll,
        "passes": round(windows.passes(train.steps), 4),
        "parameters": size,
        "tokenizer": corpus.manifest.details["tokenizer"],
        "cleaning": corpus.manifest.details["cleaning"],
        "corpus": corpus.manifest.content,
    }
    files = tuple(FileRecord(n, *hash_file(place.file(n))) for n in (CHECKPOINT, METRICS))
    state = {name: tensor.cpu() for name, tensor in module.network.state_dict().items()}
    return Made(files, details, stats=details, content=tensors_hash(state, details))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning from telling of itself: what matters here is raised or shown."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Its advice (loader workers, a missing scheduler call on resume) does not fit here.
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _stoppable(checkpoints: Checkpoints) -> Iterator[None]:
    """SIGINT or SIGTERM ends training after its step, which is saved; a second SIGINT at once.

    Raises:
        KeyboardInterrupt: training was ended so.
    """

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        checkpoints.stop()

    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit as error:
        # Lightning answers an interrupt by an exit of its own: 1, or even 0 after SIGTERM.
        raise KeyboardInterrupt from error
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def resolve_cutoffs(
    model: ModelConfig, train: TrainConfig, counts: np.ndarray[Any, Any]
) -> tuple[int, ...]:
    """The cutoffs as given, or the cheapest ones for the corpus's counts."""
    if not isinstance(model.head, AdaptiveSoftmaxConfig):
        return ()
    if model.head.cutoffs != "auto":
        return model.head.cutoffs
    return choose_cutoffs(counts, *_softmax_size(model, model.head, train))


def _softmax_size(
    model: ModelConfig, head: AdaptiveSoftmaxConfig, train: TrainConfig
) -> tuple[int, float, int]:
    """Its input's dimensions, its div, and the positions of a call, both directions together."""
    return model.recurrent.direction_width, head.div, 2 * train.rows * train.unroll


def _tell_cutoffs(
    model: ModelConfig,
    train: TrainConfig,
    counts: np.ndarray[Any, Any],
    cutoffs: tuple[int, ...],
    console: Console,
) -> None:
    if isinstance(model.head, AdaptiveSoftmaxConfig):
        gain = predicted_speedup(counts, cutoffs, *_softmax_size(model, model.head, train))
        shown = ", ".join(f"{cut:,}" for cut in cutoffs) or "none"
        console.line(
            f"adaptive softmax: cutoffs {shown}; predicted gain {gain:.1f} over the full one"
        )


def _counts(corpus: Corpus, train: TrainConfig) -> np.ndarray[Any, Any]:
    """Unigram counts of what both directions predict: tokens, ends forward, begins backward."""
    counts = 2 * corpus.counts()
    for boundary in boundary_ids(train.boundary):
        counts[boundary] += corpus.totals("train")["documents"]
    return counts


def _held_out(corpus: Corpus, train: TrainConfig) -> tuple[Any, dict[str, int]]:
    stream = TokenStream(corpus.shards("valid"), train.boundary)
    return evaluation_windows(stream, LOOK_ROWS, train.unroll), corpus.totals("valid")
