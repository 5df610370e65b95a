"""The character CNN against bilm-tf's arithmetic, which pads each token to max_characters."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.config import CharCNNInputConfig
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.inputs.word_types import types_of_window
from lightning_modules.nn.window import Types
from preprocess.tokenizers.spellings import CHARACTERS, PAD, Spellings, spell

WIDTH = 6


def encoder(seed: int = 1, **options: Any) -> CharCNN:
    torch.manual_seed(seed)
    config = {"dim": 3, "max_characters": 9, "filters": [[1, 2], [3, 5], [9, 4]]} | options
    return CharCNN(CharCNNInputConfig.model_validate(config), WIDTH)


def reference(net: CharCNN, characters: Tensor, tanh: bool) -> Tensor:
    """Compute the vectors (n, width) of words (n, max_characters) as bilm-tf does."""
    x = F.embedding(characters, net.characters.weight).transpose(1, 2)  # (n, dim, max_characters)
    maxima = []
    for weight in net.filters:
        kernel = weight.view(-1, x.shape[1], weight.shape[1]).permute(2, 1, 0)
        maxima.append(F.conv1d(x, kernel).amax(2))  # (n, filters of this width)
    y = torch.cat(maxima, 1) + net.bias
    y = y.tanh() if tanh else y.relu()
    for layer in net.highway:
        carry, transform = (
            y @ weight.T + bias
            for weight, bias in zip(
                layer.linear.weight.chunk(2), layer.linear.bias.chunk(2), strict=True
            )
        )
        gate = carry.sigmoid()
        y = gate * transform.relu() + (1 - gate) * y
    return y if net.projection is None else net.projection(y)


def window(words: list[str], places: Any, max_characters: int) -> Types:
    spellings = Spellings(["", "", "", *words].__getitem__, len(words) + 3, max_characters)
    return types_of_window(np.array(places, np.int64) + 3, spellings)


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], list[str], list[int]]:
    most = draw(st.integers(3, 12))
    filters = draw(
        st.lists(st.tuples(st.integers(1, most), st.integers(1, 4)), min_size=1, max_size=4)
    )
    words = draw(st.lists(st.text("abcé", max_size=13), min_size=1, max_size=9, unique=True))
    places = draw(st.lists(st.integers(0, len(words) - 1), min_size=1, max_size=12))
    options = {
        "dim": draw(st.integers(1, 4)),
        "max_characters": most,
        "filters": filters,
        "activation": draw(st.sampled_from(["relu", "tanh"])),
        "highway": draw(st.integers(0, 2)),
        "dropout": 0.0,
    }
    return options, words, places


@settings(deadline=None, max_examples=80)
@given(cases(), st.integers(0, 99))
def test_vectors_and_gradients_equal_those_with_full_padding(
    case: tuple[dict[str, Any], list[str], list[int]], seed: int
) -> None:
    options, words, places = case
    net = encoder(seed, **options).double()
    characters = torch.from_numpy(spell(words, options["max_characters"]).astype(np.int64))
    weights = torch.randn(1, len(places), 1, WIDTH, dtype=torch.float64)

    vectors = net(window(words, [[[p] for p in places]], options["max_characters"]))
    gradients = torch.autograd.grad((vectors * weights).sum(), list(net.parameters()))

    expected = reference(net, characters[places], options["activation"] == "tanh")[None, :, None]
    expected_gradients = torch.autograd.grad(
        (expected * weights).sum(), list(net.parameters()), allow_unused=True
    )
    torch.testing.assert_close(vectors, expected, atol=1e-10, rtol=1e-10)
    for a, b in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def test_a_window_of_padding_counts_if_the_word_leaves_room_for_it() -> None:
    net = encoder(highway=0, dropout=0.0, filters=[[2, 6]])
    with torch.no_grad():
        net.characters.weight[PAD] = 5000 * net.filters[0].view(2, 3, 6).sum(0)[:, 0]
    full, short = net.vectors(
        tuple(torch.from_numpy(spell([w], 9).astype(np.int64)) for w in ("abcdefg", "abc"))
    )

    assert short[0] > 10 * full[0].abs(), "a word of maximum length has no window of padding"


def test_a_words_vector_does_not_depend_on_the_other_words() -> None:
    net = encoder(max_characters=50).eval()
    words = ["a", "bb" * 3, "c" * 20, "dé" * 8, "e" * 48, "f" * 60]

    together = net(window(words, [[[0, 1, 2], [3, 4, 5]]], 50)).view(6, WIDTH)

    for number, word in enumerate(words):
        alone = net(window([word], [[[0]]], 50)).view(WIDTH)
        torch.testing.assert_close(alone, together[number], atol=1e-6, rtol=1e-6)


def test_a_types_vector_is_shared_and_dropout_is_per_position() -> None:
    net = encoder(dropout=0.5)
    inputs = window(["ab", "cd"], [[[0, 1]] * 9] * 2, 9)

    vectors = net.eval()(inputs)
    dropped = net.train()(inputs)

    assert vectors.shape == (2, 9, 2, WIDTH)
    assert torch.equal(vectors[0, 0, 0], vectors[1, 5, 0])
    assert vectors.dtype == torch.float32
    share = (dropped == 0).float().mean()
    assert 0.3 < share < 0.7
    assert not torch.equal(dropped[0, 0], dropped[0, 1])


def test_there_is_no_projection_if_the_widths_are_equal() -> None:
    assert encoder(filters=[[2, 4], [3, 2]]).projection is None


def test_weights_are_initialised_as_in_bilm_tf() -> None:
    net = encoder(filters=[[4, 300], [5, 200]], dim=16)
    tanh = encoder(filters=[[4, 300], [5, 200]], dim=16, activation="tanh")

    assert net.characters.weight.shape == (CHARACTERS, 16)
    assert 0.99 < net.characters.weight.abs().max() <= 1
    for weight in net.filters:
        assert 0.0499 < weight.abs().max() <= 0.05
    assert tanh.filters[0].std().item() == pytest.approx(1 / 8, rel=0.03)
    for layer in net.highway:
        assert layer.linear.weight.std().item() == pytest.approx(500**-0.5, rel=0.03)
        assert layer.linear.bias.tolist() == [-2.0] * 500 + [0.0] * 500
    assert net.projection is not None
    assert net.projection.weight.std().item() == pytest.approx(500**-0.5, rel=0.05)
    assert not net.bias.any()
    assert not net.projection.bias.any()


def test_under_bf16_autocast_vectors_are_close_and_gradients_finite() -> None:
    net = encoder(dropout=0.0)
    inputs = window(["abc", "d"], [[[0], [1]]], 9)
    plain = net(inputs)

    with torch.autocast("cpu", torch.bfloat16):
        vectors = net(inputs)
    vectors.sum().backward()

    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, plain, atol=0.05, rtol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_nan_is_not_hidden_by_the_maximum() -> None:
    net = encoder()
    with torch.no_grad():
        net.characters.weight[ord("a")] = float("nan")

    assert net(window(["xay"], [[[0]]], 9)).isnan().any()
