"""Batches of windows, which are a function of their number, and the loaders of them."""

from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.nn.window import Types, Window
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.ranks.distribution import Share
from lightning_modules.training.window_loader import (
    WindowDataset,
    WindowLoader,
    to_numpy,
    to_tensors,
)
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


def windows(stream: TokenStream, share: Share, reset_state: float = 0.0) -> TrainingWindows:
    return TrainingWindows(stream, ROWS, 5, share.of_rank, 2, reset_state)


@pytest.fixture(scope="module")
def make(tiny: Tiny) -> WindowMaker:
    vocabulary = Corpus.open(str(tiny.root / "prepare")).vocabulary
    return WindowMaker(np.arange(vocabulary), CUTOFFS)


def batch(stream: TokenStream, make: WindowMaker, number: int, share: Share) -> Any:
    return to_tensors(WindowDataset(windows(stream, share), make, share)[number])


def test_an_item_is_the_window_of_its_number_with_targets_assigned_to_clusters(
    stream: TokenStream, make: WindowMaker
) -> None:
    share = Share(ROWS)
    made = batch(stream, make, 7, share)
    expected = windows(stream, share).batch(7)
    [window] = made.passes

    assert made.step == 7
    assert window.inputs.dtype == window.targets.dtype == torch.int64
    assert np.array_equal(window.inputs, expected.ids)
    assert np.array_equal(window.targets, expected.targets)
    assert window.resets is None
    flat = window.targets.reshape(-1)
    for start, end, rows, relative in zip(CUTOFFS, (50, 10**6), *window.routes, strict=True):
        inside = relative >= 0
        assert torch.equal(rows[inside], ((flat >= start) & (flat < end)).nonzero()[:, 0])
        assert torch.equal(flat[rows[inside]], relative[inside] + start)


@pytest.mark.parametrize(("world", "passes"), [(1, 2), (2, 1), (2, 2), (4, 1)])
def test_all_ranks_and_passes_together_read_the_whole_window(
    stream: TokenStream, make: WindowMaker, world: int, passes: int
) -> None:
    [whole] = batch(stream, make, 3, Share(ROWS)).passes
    parts = [
        window
        for rank in range(world)
        for window in batch(stream, make, 3, Share(ROWS, rank, world, passes)).passes
    ]

    assert torch.equal(torch.cat([part.inputs for part in parts], 2), whole.inputs)
    assert torch.equal(torch.cat([part.targets for part in parts], 2), whole.targets)


def test_resets_are_divided_like_ids(stream: TokenStream, make: WindowMaker) -> None:
    share = Share(ROWS, passes=2)
    dataset = WindowDataset(windows(stream, share, 1.0), make, share)
    made = to_tensors(dataset[2])

    expected = windows(stream, share, 1.0).batch(2).resets
    assert np.array_equal(torch.cat([part.resets for part in made.passes], 2), expected)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("trained", [None, 4])
def test_an_epoch_begins_at_the_window_that_training_is_at(
    stream: TokenStream, make: WindowMaker, trained: int | None, workers: int
) -> None:
    dataset = WindowDataset(windows(stream, Share(ROWS)), make, Share(ROWS))
    loader = WindowLoader(dataset, 3, workers, False, lambda: trained)
    epochs = [[made.step for made in loader] for _ in range(2)]

    assert len(loader) == 3
    # A module that does not know what it has trained gets one window after another.
    assert epochs == ([[0, 1, 2], [3, 4, 5]] if trained is None else [[4, 5, 6]] * 2)
    assert loader.waited > 0
    made = next(iter(loader)).passes[0]
    theirs = to_tensors(dataset[6 if trained is None else 4]).passes[0]
    assert torch.equal(made.inputs, theirs.inputs)


def test_a_loader_is_restored_at_its_position(stream: TokenStream, make: WindowMaker) -> None:
    dataset = WindowDataset(windows(stream, Share(ROWS)), make, Share(ROWS))
    loader = WindowLoader(dataset, 10, 0, False)
    reading = iter(loader)
    first = [next(reading).step for _ in range(3)]
    other = WindowLoader(dataset, 10, 0, False)
    other.load_state_dict(loader.state_dict())

    assert first == [0, 1, 2]
    assert next(iter(other)).step == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_raises_the_same_error_with_and_without_workers(
    stream: TokenStream, make: WindowMaker, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any) -> Any:
        raise ShardError("train-0.bin is damaged")

    made = windows(stream, Share(ROWS))
    monkeypatch.setattr(made, "batch", damaged)
    loader = WindowLoader(WindowDataset(made, make, Share(ROWS)), 10, workers, False)

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
