"""The gradient representation, compared with finite differences in float64."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.evaluation.scoring import score_texts
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.window import Window
from lightning_modules.vectors import gradients
from lightning_modules.vectors.gradients import GradientEncoder
from lightning_modules.vectors.selection import SelectionError
from lightning_modules.vectors.streams import put, targets_of
from preprocess.config import WordConfig
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.base import Token
from preprocess.tokenizers.load import train_tokenizer

TEXTS = ["kana lori mele", "mele mele kana zuzu lori", "", "kana lori " * 20]
LSTM = {"kind": "lstm", "hidden": 7, "projection": 4, "cell_clip": 0.4, "projection_clip": 0.3}
SPELLING = {"kind": "char_cnn", "dim": 4, "max_characters": 12, "filters": [[1, 4], [3, 5]]}
KINDS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "three layers without residual": {"recurrent": LSTM | {"layers": 3, "residual": False}},
    "no projection": {"recurrent": LSTM | {"hidden": 4, "projection": None}},
    "gru": {"recurrent": {"kind": "gru", "hidden": 4}},
    "hgrn2": {"recurrent": {"kind": "hgrn2", "hidden": 6, "projection": 4, "expansion": 3}},
    "sru": {"recurrent": {"kind": "sru", "hidden": 4, "layers": 3}},
    "spelling, softmax": {"input": SPELLING, "head": {"kind": "softmax"}, "output_vocabulary": 5},
    "sampled, tied": {
        "head": {"kind": "sampled_softmax", "samples": 2}, "tied": True,
        "input": {"kind": "embedding"},
    },
    "adaptive": {"input": {"kind": "adaptive"}, "head": {"kind": "adaptive_softmax", "cutoffs": [2]}, "tied": True},
    "forward": {"directions": "forward"},
}  # fmt: skip
PATHS = ["total", "upward"]


def untrained(with_head: bool = True, **sections: Any) -> BiLM:
    """Return a model in float64, with weights so large that its clips act."""
    torch.manual_seed(2)
    tokenizer = train_tokenizer(WordConfig(), ["kana kana lori mele"])
    config = ModelConfig.model_validate(
        {"recurrent": LSTM, "head": {"kind": "adaptive_softmax", "cutoffs": [3]}} | sections
    )
    cutoffs = tuple(getattr(config.head, "cutoffs", ()))
    network = BiLMNetwork(config, tokenizer.vocabulary, cutoffs, head=with_head)
    with torch.no_grad():
        for layer in network.recurrent.layers:
            for weight in layer.parameters():
                weight.mul_(2)
    return BiLM(network.double(), tokenizer, CleaningConfig(), "bos_eos")


def losses(model: BiLM, text: str, change: Tensor, path: str) -> Tensor:
    """Return -log p of each direction, (directions, rows), a step and a layer at a time.

    Args:
        model: the model.
        text: the text.
        change: added to the layers' outputs, (depth, time, directions, rows, width).
        path: whether the next step of the same layer reads the changed output ("total").
    """
    network = model.network
    tokens = model.reader.read([text])[0].tokens
    ids = [token.id for token in tokens]
    rows, width = change.shape[3:]
    targets = torch.from_numpy(targets_of(ids, model.starts, network.output_vocabulary))
    with model.encoder.inference():
        streams = model.encoder.streams([tokens])
        x = model.encoder.vectors(streams, slice(None), 1, torch.device("cpu"))
    x = x.clone().double().expand(-1, -1, rows, -1)
    states = list(network.zero_state(rows).double())
    total = torch.zeros(network.directions, rows, dtype=torch.float64)
    for time in range(x.shape[1]):
        z = x[:, time : time + 1] + change[0, time].unsqueeze(1)
        for index, layer in enumerate(network.recurrent.layers):
            y, state = layer(z, states[index], None, False)
            if index and network.recurrent.config.residual:
                y = y + z
            z = y + change[index + 1, time].unsqueeze(1)
            # The states of other kinds do not hold the output.
            if path == "total" and network.recurrent.config.kind in ("lstm", "gru"):
                state = torch.cat(
                    [state[..., :width] + change[index + 1, time], state[..., width:]], -1
                )
            states[index] = state
        goal = targets[: network.directions, time, None, None].expand(-1, 1, rows).contiguous()
        total += network.target_nll(z, Window(goal, goal), training=False)[:, 0]
    return total


def differences(model: BiLM, text: str, path: str) -> npt.NDArray[np.float64]:
    """Return the gradients by central differences, (depth, tokens, dim)."""
    directions, width = model.network.directions, model.network.direction_width
    time = len(text.split()) + 1
    shape = (model.depth, time, width)
    count = int(np.prod(shape))
    step = 1e-5
    # Both directions are changed at once, because neither reads the other.
    change = torch.zeros(model.depth, time, directions, 2 * count, width, dtype=torch.float64)
    for row, (layer, position, k) in enumerate(product(*map(range, shape))):
        change[layer, position, :, row, k] = step
        change[layer, position, :, count + row, k] = -step
    with torch.no_grad():
        found = losses(model, text, change, path)
    slopes = ((found[:, :count] - found[:, count:]) / (2 * step)).view(directions, *shape)
    read = slopes[:, :, 1:]  # without the boundary token
    halves = [read[0], *(half.flip(1) for half in read[1:])]
    return torch.cat(halves, -1).numpy()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_limit_of_finite_differences(kind: str, path: Any) -> None:
    model = untrained(**KINDS[kind])

    for text in TEXTS[:2]:
        [found] = model.embed([text], kind="gradient", path=path)
        expected = differences(model, text, path)
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found.vectors, expected, atol=2e-6, rtol=1e-5)


def test_clips_act_in_these_tests() -> None:
    [found] = untrained().embed([TEXTS[1]])
    assert (np.abs(found.vectors[1]) == np.float32(0.3)).mean() > 0.1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["lstm", "gru", "hgrn2", "sru", "spelling, softmax"])
def test_gradients_depend_on_neither_the_batch_nor_the_chunks(
    kind: str, path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained(**KINDS[kind])
    alone = [model.embed([text], kind="gradient", path=path)[0].vectors for text in TEXTS]

    for positions, least, batch_tokens in ((1024, 16, 8192), (1, 1, 8192), (9, 2, 20), (64, 7, 1)):
        monkeypatch.setattr(gradients, "POSITIONS", positions)
        monkeypatch.setattr(gradients, "LEAST", least)
        found = model.embed(TEXTS, batch_tokens, kind="gradient", path=path)
        for one, other in zip(found, alone, strict=True):
            assert one.vectors.shape == other.shape
            np.testing.assert_allclose(one.vectors, other, atol=1e-7, rtol=1e-6)


def test_gradients_are_those_of_the_score() -> None:
    """Layer 0 of a word that occurs once is the gradient with respect to its shared vector."""
    model = untrained()
    text = "kana mele lori kana"
    [found] = model.embed([text], kind="gradient")
    id_ = found.tokens[1].id
    weight = model.network.input.embedding.weight
    halves = np.split(found.vectors[0, 1], 2)

    for k in range(model.network.direction_width):
        scores = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[id_, k] += step
                scores += score_texts(model, [text])
                weight[id_, k] -= step
        for direction, half in zip(("forward", "backward"), halves, strict=True):
            up, down = (getattr(one, direction) for one in scores)
            assert (down - up) / 2e-5 == pytest.approx(half[k], abs=1e-6, rel=1e-5)


def encoded(model: BiLM, ids: list[int], path: Any, starts: tuple[int, int]) -> Any:
    """Return the gradients of a text of these ids."""
    encoder = GradientEncoder(model.encoder, model.network, starts, path)
    text = [Token(id_, "", 0, 0) for id_ in ids]
    with model.encoder.inference():
        zero = model.network.zero_state(1)
        found = np.empty((model.depth, len(ids), model.dim), np.float32)
        encoder.encode([text], range(model.depth), zero, [partial(put, found)], lambda _: None)
    return found


def forward_nll(model: BiLM, ids: list[int], starts: tuple[int, int]) -> Tensor:
    """Return -log p of each target of the forward direction."""
    read = torch.tensor([[starts[0], *ids], [starts[1], *ids[::-1]]]).unsqueeze(2)
    targets = torch.from_numpy(targets_of(ids, starts, 100)).unsqueeze(2)
    with torch.no_grad():
        return model.network.nll(Window(read, targets), model.network.zero_state(1))[0][0, :, 0]


@pytest.mark.parametrize("path", PATHS)
def test_the_expected_gradient_under_the_model_is_zero(path: Any) -> None:
    model = untrained()
    vocabulary = model.tokenizer.vocabulary
    assert vocabulary < 10
    expected = probability = 0.0
    prefix, width = [4, 3, 5], model.network.direction_width

    # All continuations of two tokens; the second one stands in the place of the closing boundary.
    for first, second in product(range(vocabulary), repeat=2):
        ids, starts = [*prefix, first], (1, second)
        chance = float((-forward_nll(model, ids, starts)[-2:].sum()).exp())
        expected = expected + chance * encoded(model, ids, path, starts)[:, 2, :width]
        probability += chance

    assert probability == pytest.approx(1, abs=1e-9)
    typical = np.abs(encoded(model, [4, 3, 5, 4], path, (1, 2))[:, 2, :width]).max()
    assert np.abs(expected).max() < 1e-6 < typical


def test_what_a_gradient_depends_on() -> None:
    model = untrained(recurrent=LSTM | {"cell_clip": None, "projection_clip": None})
    texts = ["kana lori mele kana lori mele", "kana lori mele lori lori mele"]
    half = model.network.direction_width

    def differs(path: Any) -> npt.NDArray[np.bool_]:
        """(layers, tokens, direction)"""
        one, two = (text.vectors for text in model.embed(texts, kind="gradient", path=path))
        apart = np.abs(one - two).reshape(model.depth, 6, 2, half).max(3)
        return apart > 1e-7

    upward, total = differs("upward"), differs("total")
    # The top vector of a token is used for the prediction of the next token only.
    assert upward[-1, :, 0].tolist() == [False, False, True, True, True, True]
    assert upward[-1, :, 1].tolist() == [True, True, True, True, True, False]
    # Other layers, and the state of the top layer, are used for all later predictions.
    assert upward[:-1].all()
    assert total.all()


def test_paths_agree_in_the_input_and_differ_above() -> None:
    model = untrained()
    total, upward = (
        model.embed(TEXTS[:2], kind="gradient", path=path)[1].vectors
        for path in ("total", "upward")
    )
    np.testing.assert_allclose(total[0], upward[0], rtol=1e-6)
    assert np.abs(total[1:] - upward[1:]).max() > 0.01
    # After the last token there is no next step, only the end.
    np.testing.assert_allclose(total[1:, -1, :4], upward[1:, -1, :4], rtol=1e-6)


def surroundings() -> Iterator[Any]:
    yield torch.no_grad()
    yield torch.inference_mode()
    yield torch.autocast("cpu", torch.bfloat16)
    yield torch.enable_grad()


def test_gradients_depend_on_no_mode_and_leave_the_model_as_it_was() -> None:
    dropout = {"recurrent": LSTM | {"dropout": 0.5, "weight_drop": 0.5}}
    model = untrained(input={"kind": "embedding", "dropout": 0.5}, **dropout)
    [expected] = model.embed([TEXTS[1]], kind="gradient")
    model.train()
    hooked = []
    model.network.recurrent.register_forward_hook(lambda *_: hooked.append(1))

    for surrounding in surroundings():
        with surrounding:
            [found] = model.embed([TEXTS[1]], kind="gradient")
        assert np.array_equal(found.vectors, expected.vectors)
    assert len(hooked) == 4
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_model_loaded_in_inference_mode_has_gradients() -> None:
    [expected] = untrained().embed([TEXTS[0]], kind="gradient")
    with torch.inference_mode():
        model = untrained()
    [found] = model.embed([TEXTS[0]], kind="gradient")
    assert np.array_equal(found.vectors, expected.vectors)


def test_gradients_are_selected_and_pooled_as_vectors_are() -> None:
    model = untrained()
    [tokens] = model.embed([TEXTS[1]], kind="gradient")
    [mean] = model.embed([TEXTS[1]], kind="gradient", unit="sentence", pooling="mean", layers="top")
    [concat] = model.embed([TEXTS[1]], kind="gradient", layers="concat", unit="word")

    np.testing.assert_allclose(mean.vectors[0, 0], tokens.vectors[-1].mean(0), rtol=1e-5)
    assert concat.vectors.shape == (1, 5, 3 * model.dim)
    assert model.embed([""], kind="gradient")[0].vectors.shape == (3, 0, model.dim)


def test_wrong_choices_are_refused() -> None:
    model = untrained()
    with pytest.raises(SelectionError, match=r"kind: 'gradients' is unknown; use vector or grad"):
        model.embed(TEXTS, kind="gradients")  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="path: 'up' is unknown; use total or upward"):
        model.embed(TEXTS, kind="gradient", path="up")  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match=r"output layer.*export.head=true"):
        untrained(with_head=False).embed(TEXTS, kind="gradient")
    static = untrained(False, recurrent={"kind": "none", "hidden": 4}, directions="forward")
    with pytest.raises(
        SelectionError, match=r"this model is static .*; name the model that it was"
    ):
        static.embed(TEXTS, kind="gradient")
