"""Stage: token shards -> checkpoint."""

import warnings
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from lightning_modules.callbacks import (
    Checkpoints,
    Metrics,
    StorageCheckpointIO,
    newest_checkpoint,
)
from lightning_modules.config import AdaptiveSoftmaxConfig, ModelConfig, TrainConfig
from lightning_modules.datamodule import TokenShardDataModule
from lightning_modules.lit_bilm import LitBiLM
from lightning_modules.nn.adaptive_softmax import choose_cutoffs, predicted_speedup, ranks_of
from lightning_modules.pretrained import CHECKPOINT, read_checkpoint, tensors_hash
from pipeline.config import Config
from pipeline.console import Console, count
from pipeline.device import device_name, resolve_device
from pipeline.stage import Made, Place
from pipeline.stages import stage_folder
from pipeline.tracking import make_logger
from preprocess import storage
from preprocess.manifest import FileRecord, hash_file
from preprocess.token_shard import Corpus
from preprocess.token_stream import TokenStream, TrainingWindows, evaluation_windows
from preprocess.tokenizer import EOS

METRICS = "metrics.jsonl"
LOOK_ROWS = 16


def make(config: Config, place: Place, console: Console) -> Made:
    train, model = config.train, config.model
    corpus = Corpus.open(stage_folder(config, "prepare", train.corpus))

    # Data: what every row reads at every step.
    stream = TokenStream(corpus.shards("train"), train.boundary, train.order, train.seed)
    windows = TrainingWindows(stream, train.rows, train.unroll)
    counts = _counts(corpus)
    ranks = ranks_of(counts)

    # Network: the cutoffs follow from the counts.
    cutoffs = resolve_cutoffs(model, train, counts, console)
    module = LitBiLM(model, train, corpus.vocabulary, cutoffs, torch.from_numpy(ranks))
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
        console.line(f"goes on from step {read_checkpoint(resume)['global_step']:,}")

    logger = make_logger(config, place, console)
    with console.bar("train", train.steps) as bar:
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
                Checkpoints(place.work, train.checkpoint_steps, train.checkpoint_minutes),
            ],
            plugins=[StorageCheckpointIO()],
            log_every_n_steps=train.log_steps,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        data = TokenShardDataModule(windows, train, ranks, cutoffs)
        with warnings.catch_warnings():
            # Its advice (loader workers, a missing scheduler call on resume) does not fit here.
            warnings.simplefilter("ignore")
            trainer.fit(module, data, ckpt_path=resume, weights_only=True)

    last = newest_checkpoint(place.work)
    assert last is not None, "the last step is always saved"
    storage.copy(last, place.file(CHECKPOINT))
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


def resolve_cutoffs(
    model: ModelConfig, train: TrainConfig, counts: np.ndarray[Any, Any], console: Console
) -> tuple[int, ...]:
    """The cutoffs as given, or the cheapest ones for the corpus's counts."""
    if not isinstance(model.head, AdaptiveSoftmaxConfig):
        return ()
    dim, rows = model.recurrent.direction_width, 2 * train.rows * train.unroll
    given = model.head.cutoffs
    cutoffs = choose_cutoffs(counts, dim, model.head.div, rows) if given == "auto" else given
    gain = predicted_speedup(counts, cutoffs, dim, model.head.div, rows)
    shown = ", ".join(f"{cut:,}" for cut in cutoffs) or "none"
    console.line(f"adaptive softmax: cutoffs {shown}; predicted gain {gain:.1f} over the full one")
    return cutoffs


def _counts(corpus: Corpus) -> np.ndarray[Any, Any]:
    """Unigram counts of what the model predicts: the tokens, and an end a document."""
    counts = corpus.counts().copy()
    counts[EOS] += corpus.totals("train")["documents"]
    return counts


def _held_out(corpus: Corpus, train: TrainConfig) -> tuple[Any, dict[str, int]]:
    stream = TokenStream(corpus.shards("valid"), train.boundary)
    return evaluation_windows(stream, LOOK_ROWS, train.unroll), corpus.totals("valid")
