"""The windows of held-out text of each rank, and the figures that ranks find together."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.evaluation.held_out import Evaluation, HeldOut
from lightning_modules.evaluation.perplexity import LossTally
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.validation import loader as loader_module
from lightning_modules.training.validation.loader import HeldOutLoader
from preprocess.shards.format import Corpus
from preprocess.shards.held_out_rows import (
    Row,
    contiguous_rows,
    dealt,
    rows_of_documents,
    sampled_rows,
)
from preprocess.shards.stream import TokenStream, boundary_ids

Tiny = Any  # of conftest.py
MODEL = {"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}


@pytest.fixture(scope="module")
def corpus(tiny: Tiny) -> Corpus:
    return Corpus.open(str(tiny.root / "prepare"))


@pytest.fixture(scope="module")
def stream(corpus: Corpus) -> TokenStream:
    return TokenStream(corpus.shards("valid"), "eos")


def loaders(
    corpus: Corpus, stream: TokenStream, rows: list[Row], size: int, world: int, from_zero: bool
) -> list[HeldOutLoader]:
    make = WindowMaker(np.arange(corpus.vocabulary), ())
    marks = boundary_ids("eos") if from_zero else None
    blocks = dealt(rows, size)
    return [HeldOutLoader(stream, blocks, (rank, world), make, 2, marks) for rank in range(world)]


def found_by(
    network: BiLMNetwork, of_ranks: list[HeldOutLoader], text: HeldOut, vocabulary: int
) -> Evaluation:
    """Evaluate the windows of each rank, and add the sums of the ranks."""
    tallies, sums = [], []
    for windows in of_ranks:
        tally, last = None, None
        number = 0
        for window, block, blocks in windows:
            number += 1
            tally = tally or LossTally(2, vocabulary, None, torch.device("cpu"), blocks)
            if block != last:
                last, state = block, network.zero_state(window.targets.shape[2])
            with torch.inference_mode():
                nll, state = network.nll(window, state)
            tally.add(nll, window.targets, block)
        assert tally is not None
        assert number == len(windows)
        tallies.append(tally)

    def keep(one: Tensor) -> Tensor:
        sums.append(one)
        return one

    for tally in tallies:
        tally.result(text, keep)
    return tallies[0].result(text, lambda _: torch.stack(sums).sum(0))


@pytest.mark.parametrize("from_zero", [False, True])
@pytest.mark.parametrize("positions", [None, 300])
def test_figures_are_the_same_to_the_bit_on_any_number_of_ranks(
    corpus: Corpus, stream: TokenStream, from_zero: bool, positions: int | None
) -> None:
    torch.manual_seed(1)
    network = BiLMNetwork(ModelConfig.model_validate(MODEL), corpus.vocabulary)
    divide = rows_of_documents if from_zero else contiguous_rows
    rows = divide(stream, 7)
    if positions:
        rows = sampled_rows(stream, 7, positions, 3, from_zero)
    text = HeldOut.of(corpus.shards("valid"))
    found = {}
    for world in (1, 2, 3, 4, 9):
        of_ranks = loaders(corpus, stream, rows, 2, world, from_zero)
        # `DistributedDataParallel` broadcasts buffers at each window, so other numbers would end in a deadlock.
        [size] = {len(windows) for windows in of_ranks}
        assert size >= 1
        found[world] = found_by(network, of_ranks, text, corpus.vocabulary)
    assert all(one == found[1] for one in found.values())
    assert found[1].is_complete is (positions is None)
    assert found[1].total.tokens[0] <= (positions or text.tokens)


@pytest.mark.parametrize("kept", [0, 10**6])
def test_windows_are_read_once_if_they_are_few(
    corpus: Corpus, stream: TokenStream, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "KEPT_POSITIONS", kept)
    [windows] = loaders(corpus, stream, rows_of_documents(stream, 5), 2, 1, True)
    first = list(windows)
    calls: list[Any] = []
    read = stream.read
    monkeypatch.setattr(stream, "read", lambda *span: calls.append(span) or read(*span))
    second = list(windows)
    assert bool(calls) is (kept == 0)
    for one, other in zip(first, second, strict=True):
        assert (one.block, one.blocks) == (other.block, other.blocks)
        assert torch.equal(one.window.targets, other.window.targets)


@pytest.mark.parametrize("from_zero", [False, True])
def test_the_state_is_reset_at_documents_if_they_are_whole(
    corpus: Corpus, stream: TokenStream, from_zero: bool
) -> None:
    rows = (rows_of_documents if from_zero else contiguous_rows)(stream, 3)
    [windows] = loaders(corpus, stream, rows, 16, 1, from_zero)
    read = [batch.window for batch in windows]
    if not from_zero:
        assert all(window.resets is None for window in read)
    else:
        assert read[0].resets is not None
        assert read[0].resets[:, 0].all(), "each row begins with a document"
        starts = sum(int(w.resets[0].sum()) for w in read if w.resets is not None)
        assert starts == corpus.totals("valid")["documents"]


def test_a_window_has_little_padding_and_few_positions(
    corpus: Corpus, stream: TokenStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "POSITIONS", 100)
    rows = contiguous_rows(stream, 10)
    [windows] = loaders(corpus, stream, rows, 10, 1, False)
    shapes = Counter(tuple(batch.window.targets.shape) for batch in windows)
    [(directions, unroll, width)] = shapes
    assert (directions, width) == (2, 10)
    assert unroll <= 10
    padded = sum(int((batch.window.targets < 0).sum()) for batch in windows)
    assert padded <= 2 * 10 * (len(windows) + 1)
