"""Making models of every kind smaller: fewer layers, a low-rank input, fewer ids."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biloom import BiLM
from lightning_modules.config import (
    EmbeddingInputConfig,
    ModelConfig,
    WordCharCNNInputConfig,
)
from lightning_modules.models.model_folder import TYPE_VECTORS
from lightning_modules.models.model_settings import ModelSettings
from lightning_modules.models.smaller.parts import Parts
from lightning_modules.models.smaller.reduce import Reduced, changed_settings, reduce_model
from lightning_modules.models.smaller.request import OF_COMMAND, Reduction, SmallerError
from lightning_modules.models.stored_network import check_type_vectors, network_of_weights
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.inputs.word_char_cnn import WordCharCNN
from preprocess.config import SentencePieceConfig
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.base import UNKNOWN
from preprocess.tokenizers.subwords import train_sentencepiece
from preprocess.tokenizers.vocabulary import Vocabulary
from preprocess.tokenizers.words import WordTokenizer
from tests.exportable_models import MODELS, WORD_CNN, texts_of

WORDS = 100
RECURRENT = {"kind": "gru", "hidden": 6, "layers": 3}


def make(model: Mapping[str, Any], head: bool = True, seed: int = 3, ranked: bool = True) -> Parts:
    """Return a model of 103 ids with random weights."""
    torch.manual_seed(seed)
    config = ModelConfig.model_validate(model)
    tokenizer = WordTokenizer(Vocabulary.of_words([f"w{n}" for n in range(WORDS)]))
    predictable = config.predictable_ids(WORDS + 3)
    # As in training, <s> is never predicted, so it has the last rank.
    controls = [5, predictable - 1, 0]
    others = [n for n in range(predictable) if n not in controls]
    ranks = torch.tensor([*controls, *others]) if ranked else None
    cutoffs = (20, 50) if config.head.kind == "adaptive_softmax" else ()
    imported = isinstance(config.input, WordCharCNNInputConfig)
    trained = not imported and config.recurrent.layers > 0
    network = BiLMNetwork(config, WORDS + 3, cutoffs, ranks, head=trained)
    if isinstance(network.input, WordCharCNN):
        network.input.code_points.copy_(torch.tensor([*map(ord, "0123456789abcdefgklw")]))
    settings = ModelSettings(
        model=config,
        vocabulary=WORDS + 3,
        cutoffs=cutoffs,
        boundary="eos",
        cleaning=CleaningConfig(),
        tokenizer="f" * 64,
        head=head and trained,
    )
    return Parts(settings, network.state_dict(), tokenizer)


def loaded(parts: Parts) -> BiLM:
    """Return the model as a model folder gives it; all shapes and settings are checked."""
    saved = ModelSettings.model_validate(parts.settings.model_dump(mode="json"))
    weights = {k: w for k, w in parts.weights.items() if k != TYPE_VECTORS}
    if not saved.head:
        weights = {k: w for k, w in weights.items() if not k.startswith("head.")}
    network = network_of_weights(saved, weights)
    return BiLM(network, parts.tokenizer, saved.cleaning, saved.boundary)


def reduce(parts: Parts, **wanted: Any) -> Reduced:
    before = {name: weight.clone() for name, weight in parts.weights.items()}
    made = reduce_model(parts, Reduction(**wanted))
    for name, weight in parts.weights.items():
        assert torch.equal(weight, before[name]), f"{name} was changed in place"
    return made


TEXTS = texts_of(4, 9)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("tied", "static")])
@pytest.mark.parametrize("layers", [1, 2])
def test_kept_layers_have_the_same_vectors_to_the_bit(name: str, layers: int) -> None:
    model = {**MODELS[name], "recurrent": {**MODELS[name]["recurrent"], "layers": 3}}
    whole = make(model, head=False)
    small = reduce(whole, layers=layers)

    assert small.parts.settings.model.recurrent.layers == layers
    assert small.changes.layers == (3, layers)
    assert small.changes.parameters[1] == small.parts.settings.parameters
    one, other = loaded(whole), loaded(small.parts)
    for full, kept in zip(one.embed(TEXTS), other.embed(TEXTS), strict=True):
        assert len(kept.vectors) == layers + 1
        np.testing.assert_array_equal(kept.vectors, full.vectors[: layers + 1])


@pytest.mark.parametrize("name", [name for name in MODELS if name != "tied"])
@settings(deadline=None, max_examples=15)
@given(vocabulary=st.integers(4, WORDS + 2))
def test_kept_words_have_the_same_vectors_and_others_those_of_unknown(
    name: str, vocabulary: int
) -> None:
    whole = make(MODELS[name], head=False)
    if name == "adaptive":
        vocabulary = max(vocabulary, 22)  # see the test of clusters without a kept id
    small = reduce(whole, vocabulary=vocabulary)

    assert small.parts.settings.vocabulary == small.parts.tokenizer.vocabulary == vocabulary
    assert small.parts.settings.tokenizer == ""
    assert small.changes.vocabulary == (WORDS + 3, vocabulary)
    one, other = loaded(whole), loaded(small.parts)
    is_spelled = MODELS[name].get("input", {}).get("kind") == "char_cnn"
    kept = [
        [w if w in ("größe",) or _number(w) < vocabulary - 3 else "größe" for w in t] for t in TEXTS
    ]
    for full, cut in zip(one.embed(TEXTS if is_spelled else kept), other.embed(TEXTS), strict=True):
        if name == "words and characters":
            continue  # reads both; see the next test
        np.testing.assert_array_equal(cut.vectors, full.vectors)


def _number(word: str) -> int:
    return int(word[1:]) if word[1:].isdigit() and word[0] == "w" else 10**6


def test_dropped_words_of_a_dictionary_keep_their_characters() -> None:
    whole = make(MODELS["words and characters"])
    small = loaded(reduce(whole, vocabulary=40).parts)
    one = loaded(whole)

    [full], [cut] = one.embed([["w5", "w37"]]), small.embed([["w5", "w37"]])
    np.testing.assert_array_equal(cut.vectors[0, 0], full.vectors[0, 0])
    vectors = one.network.state_dict()["input.words.weight"]
    vectors[40] = vectors[UNKNOWN]  # w37
    [replaced] = one.embed([["w5", "w37"]])
    assert not np.array_equal(cut.vectors, full.vectors)
    np.testing.assert_array_equal(cut.vectors[0, 0], replaced.vectors[0, 0])


@pytest.mark.parametrize("kind", ["softmax", "sampled_softmax"])
@pytest.mark.parametrize(("tied", "limit"), [(False, None), (False, 50), (True, None)])
def test_a_full_softmax_is_normalised_over_the_kept_ids(
    kind: str, tied: bool, limit: int | None
) -> None:
    model = {"recurrent": RECURRENT, "head": {"kind": kind}, "tied": tied}
    whole = make({**model, "output_vocabulary": limit})
    small = reduce(whole, vocabulary=30)

    hidden = torch.randn(5, 6)
    full, cut = (loaded(one).network.head for one in (whole, small.parts))
    expected = full.log_probabilities(hidden)[:, :30].log_softmax(1)
    torch.testing.assert_close(cut.log_probabilities(hidden), expected)


def test_an_adaptive_softmax_keeps_the_words_that_it_cannot_predict() -> None:
    whole = make({"recurrent": RECURRENT, "output_vocabulary": 60})
    small = reduce(whole, vocabulary=60)

    hidden = torch.randn(5, 6)
    full, cut = (loaded(one).network.head for one in (whole, small.parts))
    assert torch.equal(full.log_probabilities(hidden), cut.log_probabilities(hidden))
    assert small.parts.settings.cutoffs == (20, 50)


def test_type_vectors_are_cut() -> None:
    whole = make(MODELS["characters"], head=False)
    vectors = torch.randn(WORDS + 3, 12)
    whole = whole._replace(weights={**whole.weights, TYPE_VECTORS: vectors})
    small = reduce(whole, vocabulary=30, layers=1).parts

    check_type_vectors(small.settings, small.weights[TYPE_VECTORS])
    assert torch.equal(small.weights[TYPE_VECTORS], vectors[:30])


@pytest.mark.parametrize("dim", [None, 5, 9])
@pytest.mark.parametrize("ranked", [True, False])
def test_a_low_rank_input_has_the_error_that_is_told(dim: int | None, ranked: bool) -> None:
    model = {"recurrent": RECURRENT, "input": {"kind": "embedding", "dim": dim}}
    whole = make(model, ranked=ranked)
    small = reduce(whole, input_rank=3)

    ids = torch.arange(WORDS + 3)[None, None]
    full, cut = (
        loaded(one).network.input(ids)[0, 0].detach().double() for one in (whole, small.parts)
    )
    ranks = whole.weights["head.ranks"]
    share = (ranks.double() + 1) ** -0.5
    mean = (share[:, None] * full).sum(0) / share.sum()
    apart = (share @ (cut - full).square().sum(1)) / (share @ (full - mean).square().sum(1))
    assert small.changes.input_error == pytest.approx(float(apart.sqrt()), rel=1e-3)
    assert 0.01 < float(apart.sqrt()) < 1
    config = small.parts.settings.model.input
    assert isinstance(config, EmbeddingInputConfig)
    assert config.dim == 3
    assert small.changes.input_rank == (min(dim or 6, 6), 3)


def test_a_low_rank_input_of_words_and_characters() -> None:
    whole = make(MODELS["words and characters"])
    # Words of rank 2 in 5 dimensions, so that nothing is lost.
    words = torch.randn(WORDS + 3, 2) @ torch.randn(2, 5)
    whole = whole._replace(weights={**whole.weights, "input.words.weight": words})
    small = reduce(whole, input_rank=2)

    config = small.parts.settings.model.input
    assert isinstance(config, WordCharCNNInputConfig)
    assert config.word_dim == 2
    assert small.changes.input_error == pytest.approx(0, abs=1e-5)
    for full, cut in zip(loaded(whole).embed(TEXTS), loaded(small.parts).embed(TEXTS), strict=True):
        np.testing.assert_allclose(cut.vectors, full.vectors, atol=1e-4)


def test_a_tied_input_of_a_low_rank_is_no_longer_tied() -> None:
    model = {"recurrent": RECURRENT, "head": {"kind": "softmax"}, "tied": True}
    small = reduce(make(model, head=False), input_rank=3, layers=1)

    assert not small.parts.settings.model.tied
    assert len(loaded(small.parts).embed(TEXTS)[0].vectors) == 2


def test_everything_at_once_and_parameters_are_counted() -> None:
    whole = make({"recurrent": RECURRENT, "input": {"kind": "embedding", "dim": 9}}, head=False)
    counts = np.arange(WORDS + 3, 0, -1).astype(np.uint64)
    small = reduce_model(whole, Reduction(2, 3, 40), counts)

    network = loaded(small.parts).network
    # The output layer, which is dropped, is among the parameters before.
    before = sum(w.numel() for w in whole.weights.values() if w.is_floating_point())
    after = sum(parameter.numel() for parameter in network.parameters())
    assert small.changes.parameters == (before, after)
    assert small.changes.unknown_share == pytest.approx(counts[40:].sum() / counts.sum())
    changed = changed_settings(whole.settings, small.parts.settings)
    assert changed.keys() == {"model", "vocabulary", "cutoffs", "tokenizer"}
    assert changed["cutoffs"] == [20]


def test_the_share_of_unknown_tokens_of_an_empty_corpus_is_zero() -> None:
    whole = make({"recurrent": RECURRENT}, head=False)
    small = reduce_model(whole, Reduction(vocabulary=10), np.zeros(WORDS + 3, np.uint64))

    assert small.changes.unknown_share == 0


def test_an_adaptive_input_without_a_kept_id_in_a_cluster_is_refused() -> None:
    model = {"recurrent": RECURRENT, "input": {"kind": "adaptive"}}
    whole = make(model, head=False)

    # <s> is in the last cluster, and ids from 21 on are in the one before it.
    message = "no id of a cluster of the adaptive input is among the first 21; choose at least 22"
    with pytest.raises(SmallerError, match=f"^export.vocabulary: {message}"):
        reduce(whole, vocabulary=21)
    assert reduce(whole, vocabulary=22).parts.settings.cutoffs == (20, 21)


def test_an_adaptive_input_loses_a_tail_without_a_kept_id() -> None:
    model = {"recurrent": RECURRENT, "input": {"kind": "adaptive"}}
    whole = make(model, head=False, ranked=False)
    small = reduce(whole, vocabulary=30)

    assert small.parts.settings.cutoffs == (20,)
    ids = torch.arange(30)[None, None]
    full, cut = (loaded(one).network.input(ids) for one in (whole, small.parts))
    assert torch.equal(full, cut)


GRU = {"recurrent": RECURRENT}
REFUSED: list[tuple[dict[str, Any], bool, dict[str, int], str]] = [
    (GRU, False, {"layers": 3}, "layers: 3 layers are to be kept, but the model has 3 recurrent "
     "layers; choose 1 to 2"),
    (GRU, False, {"layers": 0}, "layers: 0 layers are to be kept, .*; choose 1 to 2"),
    ({"recurrent": {**RECURRENT, "layers": 2}}, False, {"layers": 7}, "has 2 recurrent layers; choose 1$"),
    ({"recurrent": {**RECURRENT, "layers": 1}}, False, {"layers": 1}, "the model has 1 recurrent layer; "
     "none can be dropped, leave export.layers out"),
    (GRU, True, {"layers": 1}, "export.layers: the output layer reads the top layer, which is dropped; "
     "set export.head to false"),
    (GRU, True, {"input_rank": 6}, r"export.input_rank: 6 is not a lower rank than that of the input "
     r"matrix \(6\); choose 1 to 5"),
    (GRU, True, {"input_rank": 0}, r"choose 1 to 5"),
    ({**GRU, "input": {"kind": "embedding", "dim": 1}}, True, {"input_rank": 1}, r"matrix \(1\); leave it out"),
    ({**GRU, "input": {"kind": "adaptive"}}, True, {"input_rank": 2}, "vectors of rare ids are already "
     r"narrower \(model.input.kind=adaptive\); leave it out"),
    (MODELS["characters"], True, {"input_rank": 2}, r"are computed from characters \(model.input.kind=char_cnn\)"),
    ({**MODELS["words and characters"], "input": {**WORD_CNN, "word_dim": 0}}, True, {"input_rank": 2},
     "computed from characters"),
    ({**GRU, "head": {"kind": "softmax"}, "tied": True}, True, {"input_rank": 2}, "the output layer shares "
     r"the input vectors \(model.tied\) and needs their full width; set export.head to false"),
    (GRU, False, {"vocabulary": 103}, "export.vocabulary: 103 ids are to be kept, but the model has 103, of "
     "which 3 are control tokens; choose 4 to 102"),
    (GRU, False, {"vocabulary": 3}, "3 ids are to be kept, but the model has 103"),
    (GRU, True, {"vocabulary": 50}, "an adaptive softmax without some of its 103 ids is not normalised over "
     "the others; set export.head to false"),
    ({**GRU, "output_vocabulary": 60}, True, {"vocabulary": 50}, "its 60 ids .*; choose at least 60, or set"),
    ({**GRU, "input": {"kind": "adaptive"}, "tied": True}, True, {"vocabulary": 50}, "its vectors are also "
     r"those of the input \(model.tied\), so leave export.vocabulary out"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "head", "wanted", "message"), REFUSED)
def test_what_cannot_be_is_refused(
    model: dict[str, Any], head: bool, wanted: dict[str, int], message: str
) -> None:
    with pytest.raises(SmallerError, match=message):
        reduce(make(model, head=head), **wanted)


def test_a_model_without_recurrent_layers_has_none_to_drop() -> None:
    with pytest.raises(SmallerError, match="has 0 recurrent layers; none can be dropped"):
        reduce(make(MODELS["static"]), layers=1)


def test_messages_name_the_options_of_the_command() -> None:
    with pytest.raises(SmallerError, match=r"^--layers: the output layer .*; add --no-head$"):
        reduce_model(make(GRU), Reduction(layers=1, names=OF_COMMAND))


def test_a_model_without_words_is_not_cut() -> None:
    whole = make(GRU, head=False)
    none = whole._replace(tokenizer=WordTokenizer(Vocabulary.of_words([])))
    with pytest.raises(SmallerError, match="has 3, of which 3 are control tokens; leave it out"):
        reduce(none.with_settings(vocabulary=3), vocabulary=4)


def test_pieces_are_not_cut() -> None:
    config = SentencePieceConfig(vocabulary=300)
    pieces = train_sentencepiece(config, ["some text of a few words"] * 20)
    whole = make(GRU, head=False)._replace(tokenizer=pieces)

    message = "the tokenizer is sentencepiece, .*; only a word tokenizer can be cut, so leave"
    with pytest.raises(SmallerError, match=message):
        reduce(whole, vocabulary=50)
