"""Batches: what a step reads follows from its number."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.config import TrainConfig
from lightning_modules.datamodule import (
    StepDataset,
    StepLoader,
    TokenShardDataModule,
    training_stream,
)
from preprocess.token_shard import Corpus
from preprocess.token_stream import TokenStream, TrainingWindows

Tiny = Any  # of conftest.py
CUTOFFS = (20, 50)


@pytest.fixture(scope="module")
def windows(tiny: Tiny) -> TrainingWindows:
    corpus = Corpus.open(str(tiny.root / "prepare"))
    return TrainingWindows(TokenStream(corpus.shards("train"), "eos", "shuffled", 1), 3, 5)


def ranks(tiny: Tiny) -> Any:
    return np.arange(Corpus.open(str(tiny.root / "prepare")).vocabulary)


def test_an_item_is_the_batch_of_its_step_dealt_to_the_tails(
    tiny: Tiny, windows: TrainingWindows
) -> None:
    batch = StepDataset(windows, 10, ranks(tiny), CUTOFFS)[7]
    ids, targets = windows.batch(7)

    assert batch.step == 7
    assert batch.ids.shape == batch.targets.shape == (2, 5, 3)
    assert batch.ids.dtype == batch.targets.dtype == torch.int64
    assert np.array_equal(batch.ids, ids)
    assert np.array_equal(batch.targets, targets)
    flat = batch.targets.reshape(-1)
    for start, end, rows, relative in zip(CUTOFFS, (50, 10**6), *batch.routes, strict=True):
        inside = relative >= 0
        assert torch.equal(rows[inside], ((flat >= start) & (flat < end)).nonzero()[:, 0])
        assert torch.equal(flat[rows[inside]], relative[inside] + start)


@pytest.mark.parametrize("start", [0, 4, 9, 10])
def test_a_loader_begins_at_the_step_that_training_is_at(
    tiny: Tiny, windows: TrainingWindows, start: int
) -> None:
    loader = StepLoader(StepDataset(windows, 10, ranks(tiny), CUTOFFS), start)

    assert [batch.step for batch in loader] == list(range(start, 10))
    assert len(loader) == 10, "Lightning counts over the whole training"
    assert loader.state_dict() == {}


def test_the_data_module_asks_the_trainer_where_it_is(tiny: Tiny, windows: TrainingWindows) -> None:
    train = TrainConfig(rows=3, unroll=5, steps=8)
    data = TokenShardDataModule(windows, train, ranks(tiny), CUTOFFS)
    data.trainer = type("At", (), {"global_step": 6})()

    assert [batch.step for batch in data.train_dataloader()] == [6, 7]


def test_the_stream_holds_each_source_by_its_share_in_the_manifest(tiny: Tiny) -> None:
    train = TrainConfig(rows=3, unroll=5, steps=8, order="shuffled")
    corpus = Corpus.open(str(tiny.root / "prepare"))
    once = corpus.totals("train")["tokens"] + corpus.totals("train")["documents"]
    [name] = {shard.source for shard in corpus.shards("train")}

    def with_rows(*rows: dict[str, Any]) -> Corpus:
        details = {**corpus.manifest.details, "sources": rows}
        return replace(corpus, manifest=replace(corpus.manifest, details=details))

    stream = training_stream(with_rows({"name": name}), train)
    assert stream.lengths(0, 3).tolist() == [once] * 3, "a corpus of before shares"
    for others in ([], [{"name": "held out", "share": 0.0}]):
        stream = training_stream(with_rows({"name": name, "share": 1.0}, *others), train)
        assert stream.lengths(0, 3).tolist() == [once] * 3
    other = with_rows({"name": name, "share": 0.5}, {"name": "lost", "share": 0.5})
    assert len(training_stream(other, train)) == round(once / 2)
