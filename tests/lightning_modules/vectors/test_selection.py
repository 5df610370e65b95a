"""The choice and combination of layers, and the pooling of tokens."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.config import MixConfig
from lightning_modules.nn.scalar_mix import ScalarMix
from lightning_modules.vectors import selection
from lightning_modules.vectors.selection import Selection, SelectionError, Spans

DEPTH, TOKENS, DIM = 3, 7, 4


def new(shape: tuple[int, int, int]) -> Any:
    return np.empty(shape, np.float32)


@pytest.fixture
def read() -> Any:
    return np.random.default_rng(1).normal(size=(DEPTH, TOKENS, DIM)).astype(np.float32)


EACH = Spans(np.arange(TOKENS), np.arange(TOKENS))
WORDS = Spans(np.array([0, 1, 4, 6]), np.array([0, 3, 5, 6]))


def of(chosen: Selection, read: Any, spans: Spans = EACH, directions: int = 2) -> Any:
    return chosen.of(read[chosen.read_layers(len(read))], spans, directions, new)


def test_layers_of_tokens(read: Any) -> None:
    assert of(Selection(), read) is not None
    np.testing.assert_array_equal(of(Selection(), read), read)
    np.testing.assert_array_equal(of(Selection("top"), read), read[2:])
    np.testing.assert_array_equal(of(Selection((2, 0)), read), read[[2, 0]])
    np.testing.assert_array_equal(of(Selection((-1,)), read), read[2:])
    np.testing.assert_allclose(of(Selection("mean"), read), read.mean(0)[None], rtol=1e-6)
    joined = of(Selection("concat"), read)
    np.testing.assert_array_equal(joined[0, 3], np.concatenate(read[:, 3]))


@pytest.mark.parametrize("layers", ["all", "top", "mean", "mix", "concat", (0,), (0, -1)])
def test_the_shape_of_the_result_is_known_in_advance(layers: Any, read: Any) -> None:
    chosen = Selection(layers, "word")
    found = of(chosen, read, WORDS)

    assert (found.shape[0], found.shape[2]) == chosen.shape(DEPTH, DIM)
    assert found.shape[1] == len(WORDS.first)


@pytest.mark.parametrize(
    ("pooling", "forward", "backward"),
    [("direction", (3, 5), (1, 4)), ("first", (1, 4), (1, 4)), ("last", (3, 5), (3, 5))],
)
def test_pooling_chooses_the_tokens_of_each_half(
    read: Any, pooling: Any, forward: tuple[int, int], backward: tuple[int, int]
) -> None:
    found = of(Selection("all", "word", pooling), read, WORDS)

    np.testing.assert_array_equal(found[:, 1:3, :2], read[:, forward, :2])
    np.testing.assert_array_equal(found[:, 1:3, 2:], read[:, backward, 2:])
    np.testing.assert_array_equal(found[:, [0, 3]], read[:, [0, 6]])


def test_mean_pooling_averages_the_tokens_of_a_word(read: Any) -> None:
    found = of(Selection("top", "word", "mean"), read, WORDS)

    np.testing.assert_allclose(found[0, 1], read[2, 1:4].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found[0, 3], read[2, 6], rtol=1e-6)


def test_vectors_of_a_forward_model_are_not_split_into_halves(read: Any) -> None:
    found = of(Selection("all", "word"), read, WORDS, directions=1)

    np.testing.assert_array_equal(found, read[:, WORDS.last])


def test_a_mix_is_the_weighted_sum_of_the_layers(read: Any) -> None:
    mix = MixConfig(weights=(0.5, -1.0, 2.0), gamma=3.0)
    shares = np.exp([0.5, -1.0, 2.0]) / np.exp([0.5, -1.0, 2.0]).sum()

    found = of(Selection("mix", mix=mix), read)

    expected = 3 * sum(share * layer for share, layer in zip(shares, read, strict=True))
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(of(Selection("mix"), read), read.mean(0)[None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("block", [1, 100, 1 << 24])
def test_mixing_agrees_with_the_scalar_mix_module(
    read: Any, layer_norm: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "BLOCK_BYTES", block)
    weights = (0.1, 0.2, -0.4)
    module = ScalarMix(DEPTH, "text" if layer_norm else None, weights, gamma=1.7)
    mix = MixConfig(weights=weights, gamma=1.7, layer_norm=layer_norm)

    expected = module(torch.from_numpy(read)[:, None]).detach().numpy()

    np.testing.assert_allclose(of(Selection("mix", mix=mix), read), expected, atol=1e-5)
    pooled = of(Selection("mix", "word", "mean", mix), read, WORDS)
    np.testing.assert_allclose(pooled[0, 1], expected[0, 1:4].mean(0), atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["all", "top", "mean", "mix", "concat", (1, 0)]),
    st.sampled_from(["direction", "mean", "first", "last"]),
    st.integers(1, 2000),
)
def test_the_size_of_the_pieces_makes_no_difference(layers: Any, pooling: Any, block: int) -> None:
    read = np.random.default_rng(2).normal(size=(DEPTH, TOKENS, DIM)).astype(np.float32)
    chosen = Selection(layers, "word", pooling)
    whole = of(chosen, read, WORDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "BLOCK_BYTES", block)
        pieces = of(chosen, read, WORDS)

    np.testing.assert_allclose(pieces, whole, atol=1e-6)


@pytest.mark.parametrize("layers", ["all", "mix", "concat", (0,)])
@pytest.mark.parametrize("unit", ["token", "word", "sentence"])
def test_a_text_without_tokens_has_no_vectors(layers: Any, unit: Any) -> None:
    chosen = Selection(layers, unit, mix=MixConfig(layer_norm=True))
    none = np.zeros(0, np.int64)
    found = of(chosen, np.zeros((DEPTH, 0, DIM), np.float32), Spans(none, none))

    assert found.shape[1] == 0


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (
            Selection((3,)),
            r"layers: this model has no layer 3; its layers are 0 \(the input\) to 2",
        ),
        (Selection((-4,)), "no layer -4"),
        (Selection(()), "layers: the list is empty"),
        (Selection("some"), "layers: 'some' is unknown; use all, top, mean, mix, concat or"),  # type: ignore[arg-type]
        (Selection(unit="line"), "unit: 'line' is unknown; use token, word or sentence"),  # type: ignore[arg-type]
        (Selection(pooling="max"), "pooling: 'max' is unknown; use"),  # type: ignore[arg-type]
        (
            Selection("mix", mix=MixConfig(weights=(1.0, 2.0))),
            r"mix\.weights: 2 weights, but this model has 3 layers",
        ),
    ],
)
def test_a_choice_that_the_model_does_not_offer_is_refused(chosen: Selection, told: str) -> None:
    with pytest.raises(SelectionError, match=told):
        chosen.check(DEPTH)


def test_without_recurrent_layers_no_direction_has_read_a_word(read: Any) -> None:
    found = of(Selection(unit="word"), read, WORDS, directions=0)
    np.testing.assert_array_equal(found, of(Selection(unit="word", pooling="mean"), read, WORDS))
    last = of(Selection(unit="word", pooling="last"), read, WORDS, directions=0)
    np.testing.assert_array_equal(last, read[:, WORDS.last])
    np.testing.assert_array_equal(of(Selection("top"), read, directions=0), read[2:])
