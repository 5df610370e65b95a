"""Batches, which are a function of the step."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.nn.window import Types, Window
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.datamodule import (
    StepDataset,
    StepLoader,
    TokenShardDataModule,
    to_numpy,
    to_tensors,
    training_stream,
)
from lightning_modules.training.distribution import Share
from preprocess.shards.format import Corpus, ShardError
from preprocess.shards.stream import TokenStream
from preprocess.shards.windows import TrainingWindows

Tiny = Any  # of conftest.py
CUTOFFS = (20, 50)
ROWS = 4


@pytest.fixture(scope="module")
def stream(tiny: Tiny) -> TokenStream:
    return TokenStream(
        Corpus.open(str(tiny.root / "prepare")).shards("train"), "eos", "shuffled", 1
    )


def windows(stream: TokenStream, share: Share, directions: int = 2) -> TrainingWindows:
    return TrainingWindows(stream, ROWS, 5, share.of_rank, directions)


@pytest.fixture(scope="module")
def make(tiny: Tiny) -> WindowMaker:
    vocabulary = Corpus.open(str(tiny.root / "prepare")).vocabulary
    return WindowMaker(np.arange(vocabulary), CUTOFFS)


def of_step(stream: TokenStream, make: WindowMaker, step: int, share: Share, many: int = 1) -> Any:
    return to_tensors(StepDataset(windows(stream, share), make, share, many, 20)[step])


def test_an_item_is_the_batch_of_its_step_with_targets_assigned_to_clusters(
    stream: TokenStream, make: WindowMaker
) -> None:
    share = Share(ROWS)
    batch = of_step(stream, make, 7, share)
    ids, targets, _ = windows(stream, share).batch(7)
    [[window]] = batch.windows

    assert batch.step == 7
    assert window.inputs.dtype == window.targets.dtype == torch.int64
    assert np.array_equal(window.inputs, ids)
    assert np.array_equal(window.targets, targets)
    assert window.resets is None
    flat = window.targets.reshape(-1)
    for start, end, rows, relative in zip(CUTOFFS, (50, 10**6), *window.routes, strict=True):
        inside = relative >= 0
        assert torch.equal(rows[inside], ((flat >= start) & (flat < end)).nonzero()[:, 0])
        assert torch.equal(flat[rows[inside]], relative[inside] + start)


@pytest.mark.parametrize(("world", "passes"), [(1, 2), (2, 1), (2, 2), (4, 1)])
def test_all_ranks_and_passes_together_read_the_whole_batch(
    stream: TokenStream, make: WindowMaker, world: int, passes: int
) -> None:
    [[whole]] = of_step(stream, make, 3, Share(ROWS)).windows
    parts = [
        window
        for rank in range(world)
        for window in of_step(stream, make, 3, Share(ROWS, rank, world, passes)).windows[0]
    ]

    assert torch.equal(torch.cat([part.inputs for part in parts], 2), whole.inputs)
    assert torch.equal(torch.cat([part.targets for part in parts], 2), whole.targets)


def test_an_accumulated_step_reads_consecutive_windows(
    stream: TokenStream, make: WindowMaker
) -> None:
    batch = of_step(stream, make, 2, Share(ROWS), many=3)
    each = [of_step(stream, make, step, Share(ROWS)).windows[0][0] for step in (6, 7, 8)]

    assert len(batch.windows) == 3
    for [ours], theirs in zip(batch.windows, each, strict=True):
        assert torch.equal(ours.inputs, theirs.inputs)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("start", [0, 4, 10])
def test_a_loader_begins_at_its_step_with_and_without_workers(
    stream: TokenStream, make: WindowMaker, start: int, workers: int
) -> None:
    dataset = StepDataset(windows(stream, Share(ROWS)), make, Share(ROWS), 1, 10)
    loader = StepLoader(dataset, start, workers, pinned=False)
    batches = list(loader)

    assert [batch.step for batch in batches] == list(range(start, 10))
    assert len(loader) == 10 - start
    for batch in batches:
        ours, theirs = batch.windows[0][0], to_tensors(dataset[batch.step]).windows[0][0]
        assert torch.equal(ours.inputs, theirs.inputs)
    assert (loader.waited > 0) is bool(batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_raises_the_same_error_with_and_without_workers(
    stream: TokenStream, make: WindowMaker, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any) -> Any:
        raise ShardError("train-0.bin is damaged")

    made = windows(stream, Share(ROWS))
    monkeypatch.setattr(made, "batch", damaged)
    loader = StepLoader(StepDataset(made, make, Share(ROWS), 1, 10), 0, workers, pinned=False)

    with pytest.raises(ShardError, match=r"^train-0\.bin is damaged$"):
        next(iter(loader))


def test_tensors_survive_the_conversion_to_arrays_and_back() -> None:
    types = Types((torch.arange(6).view(2, 3),), torch.zeros(2, 1, 1, dtype=torch.int64))
    window = Window(types, torch.ones(2, 1, 1, dtype=torch.int64))
    found = to_tensors(to_numpy((3, (window,))))

    assert found[0] == 3
    assert isinstance(found[1][0], Window)
    assert isinstance(found[1][0].inputs, Types)
    assert torch.equal(found[1][0].inputs.characters[0], types.characters[0])
    assert isinstance(to_numpy(window).targets, np.ndarray)


def test_the_data_module_has_one_loader(stream: TokenStream, make: WindowMaker) -> None:
    train = TrainConfig(rows=ROWS, unroll=5, steps=8, data_workers=0)
    data = TokenShardDataModule(windows(stream, Share(ROWS)), make, train, Share(ROWS), 6)

    assert data.train_dataloader() is data.loader
    assert [batch.step for batch in data.loader] == [6, 7]


def test_the_stream_repeats_each_source_according_to_its_share(tiny: Tiny) -> None:
    train = TrainConfig(rows=3, unroll=5, steps=8, order="shuffled")
    corpus = Corpus.open(str(tiny.root / "prepare"))
    once = corpus.totals("train")["tokens"] + corpus.totals("train")["documents"]
    [name] = {shard.source for shard in corpus.shards("train")}

    def with_rows(*rows: dict[str, Any]) -> Corpus:
        details = {**corpus.manifest.details, "sources": rows}
        return replace(corpus, manifest=replace(corpus.manifest, details=details))

    stream = training_stream(with_rows({"name": name}), train)
    assert stream.lengths(0, 3).tolist() == [once] * 3, "a manifest of a version without shares"
    for others in ([], [{"name": "held out", "share": 0.0}]):
        stream = training_stream(with_rows({"name": name, "share": 1.0}, *others), train)
        assert stream.lengths(0, 3).tolist() == [once] * 3
    other = with_rows({"name": name, "share": 0.5}, {"name": "lost", "share": 0.5})
    assert len(training_stream(other, train)) == round(once / 2)
