"""Held-out perplexity: the same as document by document, row by row and token by token."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.evaluation import Evaluation, evaluate
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.pretrained import network_of_checkpoint
from preprocess.manifest import read_manifest
from preprocess.token_shard import Corpus
from preprocess.token_stream import TokenStream, evaluation_windows
from preprocess.tokenizer import EOS

Tiny = Any  # of conftest.py


@pytest.fixture(scope="module")
def network(trained: Path) -> BiLMNetwork:
    folder = str(trained / "train")
    return network_of_checkpoint(folder, read_manifest(folder, "train").details)


@pytest.fixture(scope="module")
def corpus(tiny: Tiny) -> Corpus:
    return Corpus.open(str(tiny.root / "prepare"))


def run(network: BiLMNetwork, corpus: Corpus, rows: int, unroll: int) -> Evaluation:
    stream = TokenStream(corpus.shards("valid"), "eos")
    return evaluate(network, evaluation_windows(stream, rows, unroll), corpus.totals("valid"))


@torch.no_grad()
def by_hand(network: BiLMNetwork, corpus: Corpus) -> list[float]:
    """Token by token along the documents as they stand, each direction with a state of its own."""
    network = network.eval()
    text = [EOS]
    for shard in corpus.shards("valid"):
        place = 0
        for length in shard.lengths.tolist():
            text += [*shard.ids[place : place + length].tolist(), EOS]
            place += length
    sums = [0.0, 0.0]
    for direction, sequence in enumerate((text, text[::-1])):
        state = network.zero_state(1)
        for token, following in pairwise(sequence):
            layers, state = network.layers(torch.full((2, 1, 1), token), state)
            logs = network.head.log_prob(layers[-1][direction, 0])  # (1, vocabulary)
            sums[direction] -= float(logs[0, following])
    return sums


def test_one_row_equals_the_documents_one_after_the_other(
    network: BiLMNetwork, corpus: Corpus
) -> None:
    found = run(network, corpus, rows=1, unroll=7)

    assert [found.forward, found.backward] == pytest.approx(by_hand(network, corpus), rel=1e-5)


def test_the_unroll_changes_nothing(network: BiLMNetwork, corpus: Corpus) -> None:
    one, *others = (run(network, corpus, rows=4, unroll=unroll) for unroll in (64, 1, 5, 1000))

    for other in others:
        assert other.forward == pytest.approx(one.forward, rel=1e-6)
        assert other.backward == pytest.approx(one.backward, rel=1e-6)


def test_more_rows_than_positions_are_fine(network: BiLMNetwork, corpus: Corpus) -> None:
    found = run(network, corpus, rows=1000, unroll=5)

    # Every position from zero state: another number, of the same size.
    assert found.forward == pytest.approx(run(network, corpus, 1, 5).forward, rel=0.2)


def test_each_documents_end_counts_as_token_word_and_byte(
    network: BiLMNetwork, corpus: Corpus
) -> None:
    totals, found = corpus.totals("valid"), run(network, corpus, rows=2, unroll=5)

    assert found.tokens == totals["tokens"] + totals["documents"]
    assert found.words == totals["words"] + totals["documents"]
    assert found.text_bytes == totals["text_bytes"] + totals["documents"]


def test_figures_are_exponents_of_the_means() -> None:
    figures = Evaluation(
        forward=200.0, backward=100.0, tokens=100, words=50, text_bytes=400
    ).figures()

    assert figures["forward_perplexity"] == pytest.approx(math.exp(2))
    assert figures["backward_perplexity"] == pytest.approx(math.exp(1))
    assert figures["average_perplexity"] == pytest.approx(math.exp(1.5))
    assert figures["average_word_perplexity"] == pytest.approx(math.exp(3))
    assert figures["bits_per_byte"] == pytest.approx(150 / math.log(2) / 400)


def test_a_perplexity_beyond_all_numbers_is_still_one() -> None:
    figures = Evaluation(1e9, 1e9, 1, 1, 1).figures()

    assert json.loads(json.dumps(figures))["average_perplexity"] > 1e300


def test_the_mode_of_the_network_is_left_as_it_was(network: BiLMNetwork, corpus: Corpus) -> None:
    for training in (True, False):
        network.train(training)
        first = run(network, corpus, rows=2, unroll=5)
        assert network.training is training
        assert run(network, corpus, rows=2, unroll=5) == first, "dropout acts"
