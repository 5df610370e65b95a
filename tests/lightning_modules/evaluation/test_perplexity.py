"""Held-out loss, compared with a computation token by token."""

import functools
from collections import defaultdict
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
import torch

from lightning_modules.config import ModelConfig
from lightning_modules.evaluation import perplexity as evaluation_module
from lightning_modules.evaluation.held_out import Evaluation, HeldOut
from lightning_modules.evaluation.perplexity import LossTally, evaluate
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.routes import ranks_of
from lightning_modules.nn.inputs.word_types import types_of_window
from preprocess.shards.format import Corpus
from preprocess.shards.held_out_rows import contiguous_rows, rows_of_documents
from preprocess.shards.held_out_windows import HeldOutWindows
from preprocess.shards.stream import TokenStream, boundary_ids, target_counts
from preprocess.tokenizers.base import UNKNOWN
from preprocess.tokenizers.load import load_tokenizer
from preprocess.tokenizers.spellings import Spellings

Tiny = Any  # of conftest.py
Boundary = Literal["eos", "bos_eos"]
RECURRENT = {"kind": "lstm", "hidden": 8, "projection": 4}


@pytest.fixture(scope="module")
def corpus(tiny: Tiny) -> Corpus:
    return Corpus.open(str(tiny.root / "prepare"))


@pytest.fixture(scope="module")
def network(corpus: Corpus) -> BiLMNetwork:
    return build(corpus)


def build(corpus: Corpus, **model: Any) -> BiLMNetwork:
    """Return a network with large weights, so that its losses are far from chance."""
    torch.manual_seed(3)
    config = ModelConfig.model_validate(
        {"recurrent": RECURRENT, "head": {"kind": "softmax"}, **model}
    )
    network = BiLMNetwork(config, corpus.vocabulary)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    return network


def run(
    network: BiLMNetwork,
    corpus: Corpus,
    rows: int = 4,
    unroll: int = 8,
    boundary: Boundary = "eos",
    whole_documents: bool = False,
    **options: Any,
) -> Evaluation:
    shards = corpus.shards("valid")
    divide = rows_of_documents if whole_documents else contiguous_rows
    stream = TokenStream(shards, boundary)
    windows = HeldOutWindows(stream, divide(stream, rows), unroll)
    return evaluate(network, windows, HeldOut.of(shards), **options)


def texts(corpus: Corpus, boundary: Boundary) -> list[list[list[int]]]:
    """Return the documents with their boundaries, as the forward and the backward model read them."""
    before, after = boundary_ids(boundary)
    found = []
    for shard in corpus.shards("valid"):
        ids, place = shard.ids.tolist(), 0
        for length in shard.lengths.tolist():
            found.append([before, *ids[place : place + length], after])
            place += length
    return [found, [document[::-1] for document in found[::-1]]]


@torch.no_grad()
def by_hand(
    network: BiLMNetwork, corpus: Corpus, boundary: Boundary = "eos", reset: bool = False
) -> list[dict[int, list[float]]]:
    """Return -log p of the targets by id for each direction, computed token by token."""
    network = network.eval()
    directions = network.directions
    losses: list[dict[int, list[float]]] = []
    for direction, documents in enumerate(texts(corpus, boundary)[:directions]):
        losses.append(defaultdict(list))
        state = network.zero_state(1)
        for document in documents:
            if reset:
                state = network.zero_state(1)
            for token, following in pairwise(document):
                layers, state = network.layers(torch.full((directions, 1, 1), token), state)
                target = following if following < network.output_vocabulary else UNKNOWN
                loss = network.head.nll(layers[-1][direction, 0], torch.tensor([target]))
                losses[direction][target].append(float(loss))
    return losses


def total(losses: dict[int, list[float]]) -> float:
    return sum(map(sum, losses.values()))


@pytest.mark.parametrize("boundary", ["eos", "bos_eos"])
@pytest.mark.parametrize("directions", ["both", "forward"])
@pytest.mark.parametrize("reset", [False, True])
def test_one_row_equals_the_documents_one_after_another(
    corpus: Corpus, boundary: Boundary, directions: str, reset: bool
) -> None:
    network = build(corpus, directions=directions)
    starts = boundary_ids(boundary) if reset else None

    found = run(network, corpus, 1, 7, boundary, document_starts=starts)

    expected = by_hand(network, corpus, boundary, reset)
    assert found.total.nats == pytest.approx([total(one) for one in expected], rel=1e-5)
    assert found.total.tokens == (found.text.tokens,) * network.directions


@pytest.mark.parametrize("boundary", ["eos", "bos_eos"])
@pytest.mark.parametrize("directions", ["both", "forward"])
@pytest.mark.parametrize(("rows", "unroll"), [(1, 7), (6, 5), (1000, 64)])
def test_rows_of_whole_documents_equal_each_document_from_the_zero_state(
    corpus: Corpus, boundary: Boundary, directions: str, rows: int, unroll: int
) -> None:
    network = build(corpus, directions=directions)
    starts = boundary_ids(boundary)

    found = run(
        network, corpus, rows, unroll, boundary, whole_documents=True, document_starts=starts
    )

    expected = by_hand(network, corpus, boundary, reset=True)
    assert found.total.nats == pytest.approx([total(one) for one in expected], rel=1e-5)


def test_resetting_and_carrying_the_state_differ(network: BiLMNetwork, corpus: Corpus) -> None:
    carried, reset = run(network, corpus), run(network, corpus, document_starts=(2, 2))

    assert reset.loss != pytest.approx(carried.loss, rel=1e-4)


def test_the_length_of_the_windows_changes_nothing(network: BiLMNetwork, corpus: Corpus) -> None:
    one, *others = (run(network, corpus, unroll=unroll) for unroll in (64, 1, 5, 1000))

    for other in others:
        assert other.total.nats == pytest.approx(one.total.nats, rel=1e-6)


def test_there_may_be_more_rows_than_positions(network: BiLMNetwork, corpus: Corpus) -> None:
    found = run(network, corpus, rows=1000, unroll=5)

    # Every position starts from the zero state, so the loss differs, but not by much.
    assert found.loss == pytest.approx(run(network, corpus, 1, 5).loss, rel=0.2)


def test_the_sums_of_blocks_are_added_in_their_order_whatever_the_order_of_adding(
    network: BiLMNetwork, corpus: Corpus
) -> None:
    nll = torch.rand(3, 2, 1, 7, generator=torch.Generator().manual_seed(1)) * 1e3
    targets = torch.full((2, 1, 7), 5)
    text = HeldOut.of(corpus.shards("valid"))
    found = []
    for order in ([0, 1, 2], [2, 0, 1]):
        tally = LossTally(2, corpus.vocabulary, None, torch.device("cpu"), 3)
        for block in order:
            tally.add(nll[block], targets, block)
        found.append(tally.result(text).total)
    assert found[0] == found[1]
    assert found[0].tokens == (21, 21)
    assert found[0].nats == pytest.approx(nll.sum((0, 2, 3)).tolist())


def test_a_missing_window_fails_an_assertion(network: BiLMNetwork, corpus: Corpus) -> None:
    shards = corpus.shards("valid")
    stream = TokenStream(shards, "eos")
    windows = HeldOutWindows(stream, contiguous_rows(stream, 2)[:1], 8)
    with pytest.raises(AssertionError, match="each token is counted once"):
        evaluate(network, windows, HeldOut.of(shards))


def test_a_part_of_a_split_has_figures_per_token(network: BiLMNetwork, corpus: Corpus) -> None:
    """Lightning's sanity check and ``limit_val_batches`` evaluate the first windows only."""
    shards = corpus.shards("valid")
    tally = LossTally(2, corpus.vocabulary, None, torch.device("cpu"))
    tally.add(torch.full((2, 1, 3), 1.5), torch.tensor([[[5, 7, -100]]] * 2))

    found = tally.result(HeldOut.of(shards))

    assert found.total.tokens == (2, 2)
    assert not found.is_complete
    assert found.loss == pytest.approx(1.5)
    assert found.figures()["average_perplexity"] == pytest.approx(np.exp(1.5))


def test_padding_alone_is_evaluated_to_no_figure(corpus: Corpus) -> None:
    """A rank may have padding only."""
    tally = LossTally(2, corpus.vocabulary, None, torch.device("cpu"))
    tally.add(torch.zeros(2, 4, 1), torch.full((2, 4, 1), -100))

    found = tally.result(HeldOut.of(corpus.shards("valid")))

    assert np.isnan(found.loss)
    assert found.figures()["average_perplexity"] is None


@pytest.mark.parametrize("boundary", ["eos", "bos_eos"])
def test_bands_hold_the_targets_of_their_ranks(
    network: BiLMNetwork, corpus: Corpus, boundary: Boundary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_module, "FIRST_BAND", 5)
    size = corpus.vocabulary
    ranks = ranks_of(target_counts(corpus, boundary, 2, size))
    expected = by_hand(network, corpus, boundary)

    found = run(network, corpus, 1, 16, boundary, ranks=ranks)

    assert list(found.bands) == [(1, 5), (6, 50), (51, size)]
    for (first, last), sums in found.bands.items():
        own = [
            {id_: one for id_, one in losses.items() if first <= ranks[id_] + 1 <= last}
            for losses in expected
        ]
        assert sums.tokens == tuple(sum(map(len, losses.values())) for losses in own)
        assert sums.nats == pytest.approx([total(losses) for losses in own], rel=1e-5)
    for direction in (0, 1):
        bands = found.bands.values()
        assert sum(sums.tokens[direction] for sums in bands) == found.text.tokens
        nats = sum(sums.nats[direction] for sums in bands)
        assert nats == pytest.approx(found.total.nats[direction])


@pytest.mark.parametrize(
    ("vocabulary", "bands"),
    [
        (80, [(1, 80)]),
        (100, [(1, 100)]),
        (101, [(1, 100), (101, 101)]),
        (12_000, [(1, 100), (101, 1_000), (1_001, 10_000), (10_001, 12_000)]),
    ],
)
def test_bands_end_at_powers_of_ten(vocabulary: int, bands: list[tuple[int, int]]) -> None:
    tally = LossTally(1, vocabulary, np.arange(vocabulary), torch.device("cpu"))
    ids = torch.tensor([first - 1 for first, _ in bands] + [last - 1 for _, last in bands])
    tally.add(torch.ones(1, 1, len(ids)), ids.view(1, 1, -1))

    found = tally.result(HeldOut(len(ids), 1, 1, 1, {}))

    assert tally.result(found.text) == found, "a result changes no sum"
    assert list(found.bands) == bands
    assert [sums.tokens for sums in found.bands.values()] == [(2,)] * len(bands)


def test_targets_that_cannot_be_predicted_are_unknown_and_counted(corpus: Corpus) -> None:
    network = build(corpus, output_vocabulary=40)
    ranks = np.arange(40)[::-1].copy()  # the unknown word is the last of the last band

    found = run(network, corpus, 1, 16, ranks=ranks)

    expected = by_hand(network, corpus)
    assert found.total.nats == pytest.approx([total(one) for one in expected], rel=1e-5)
    assert found.unknown == len(expected[0][UNKNOWN]) > 0
    assert found.bands[1, 40].tokens == found.total.tokens
    assert found.figures()["bits_per_byte"] is None


def test_text_without_unknown_words_has_bits_per_byte(network: BiLMNetwork, corpus: Corpus) -> None:
    found = run(network, corpus)

    assert found.unknown == 0
    assert found.figures()["bits_per_byte"] > 0


def test_words_are_read_by_their_spelling(corpus: Corpus, tiny: Tiny) -> None:
    encoder = {"kind": "char_cnn", "dim": 2, "filters": [[1, 4], [3, 4]], "max_characters": 12}
    network = build(corpus, input=encoder)
    tokenizer = load_tokenizer(str(tiny.root / "tokenizer"))
    spellings = Spellings(tokenizer.spelling, tokenizer.vocabulary, 12)
    encode = functools.partial(types_of_window, spellings=spellings)
    one, other = (run(network, corpus, 1, unroll, encode=encode) for unroll in (1000, 9))
    assert other.total.nats == pytest.approx(one.total.nats, rel=1e-6)

    # The same vectors looked up by id.
    plain = build(corpus)
    plain.recurrent, plain.head = network.recurrent, network.head
    every = types_of_window(np.arange(corpus.vocabulary).reshape(1, 1, -1), spellings)
    with torch.no_grad():
        plain.input.embedding.weight.copy_(network.input.eval()(every)[0, 0])
    assert run(plain, corpus, 1).total.nats == pytest.approx(one.total.nats, rel=1e-5)


def test_the_mode_of_the_network_is_left_as_it_was(network: BiLMNetwork, corpus: Corpus) -> None:
    for training in (True, False):
        network.train(training)
        first = run(network, corpus, rows=2, unroll=5)
        assert network.training is training
        assert run(network, corpus, rows=2, unroll=5) == first, "dropout acts"
