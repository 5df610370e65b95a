"""Models in bfloat16, float16 and float64: dtypes of results, and their errors against float32."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from biloom import BiLM, BiLMEmbedder
from lightning_modules.config import ModelConfig
from lightning_modules.evaluation.scoring import score_texts
from lightning_modules.evaluation.surprise import surprises
from lightning_modules.nn.bilm import BiLMNetwork
from pipeline.commands.elmo import import_elmo
from preprocess.config import WordConfig
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.load import train_tokenizer
from tests.lightning_modules.models.manylangs.small_model import make_model

TEXTS = ["The cat sat on the mat .", "A dog ran to the cat , twice .", "Tout été , naïve 字", ""]
CHARACTERS = {"kind": "char_cnn", "dim": 4, "max_characters": 12, "filters": [[1, 4], [3, 9]]}
MODELS: dict[str, dict[str, Any]] = {
    "embedding, softmax": {
        "input": {"kind": "embedding", "dim": 5},
        "head": {"kind": "softmax"},
    },
    "tied embedding, sampled softmax": {
        "input": {"kind": "embedding"},
        "head": {"kind": "sampled_softmax", "samples": 4},
        "tied": True,
    },
    "char_cnn, adaptive softmax": {
        "input": CHARACTERS,
        "recurrent": {"kind": "lstm", "hidden": 12, "projection": 6, "forget_bias": 1.0},
    },
    "adaptive, adaptive softmax": {"input": {"kind": "adaptive"}},
    "tied adaptive, GRU": {
        "input": {"kind": "adaptive"},
        "recurrent": {"kind": "gru", "hidden": 6},
        "tied": True,
    },
    "HGRN2": {"recurrent": {"kind": "hgrn2", "hidden": 12, "projection": 6, "expansion": 4}},
    "SRU, softmax": {"recurrent": {"kind": "sru", "hidden": 6}, "head": {"kind": "softmax"}},
    "forward only": {"input": CHARACTERS, "directions": "forward"},
}
ERRORS = {torch.bfloat16: 0.02, torch.float16: 3e-3, torch.float64: 1e-6}
"""Largest difference from float32, relative to the largest value."""
Floats = npt.NDArray[np.float32]


def untrained(settings: dict[str, Any]) -> BiLM:
    torch.manual_seed(1)
    tokenizer = train_tokenizer(WordConfig(), [*TEXTS, "The mat ran ."] * 9)
    recurrent = {"kind": "lstm", "hidden": 12, "projection": 6}
    config = ModelConfig.model_validate({"recurrent": recurrent} | settings)
    cutoffs = (8, 14) if config.head.kind == "adaptive_softmax" else ()
    network = BiLMNetwork(config, tokenizer.vocabulary, cutoffs)
    return BiLM(network, tokenizer, CleaningConfig(), "bos_eos")


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> BiLM:
    return untrained(MODELS[request.param])


@pytest.fixture(params=ERRORS)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


def error_of(model: BiLM, dtype: torch.dtype) -> float:
    """Return the largest difference of a model's vectors, relative to the largest value."""
    # HGRN2 divides by a root mean square, which is small for some tokens.
    return ERRORS[dtype] * (2 if model.network.recurrent.config.kind == "hgrn2" else 1)


def assert_near(found: Any, expected: Any, error: float) -> None:
    found, expected = (torch.as_tensor(one).double() for one in (found, expected))
    assert float((found - expected).abs().max()) <= error * float(expected.abs().max())


def vectors(model: BiLM) -> Floats:
    found: Floats = np.concatenate([one.vectors for one in model.embed(TEXTS)], 1)
    return found


def test_vectors_are_float32_and_near(model: BiLM, dtype: torch.dtype) -> None:
    expected, encoded = vectors(model), model.encode(TEXTS[:3])
    model.to(dtype)
    found = vectors(model)

    assert found.dtype == np.float32
    assert_near(found, expected, error_of(model, dtype))
    assert not np.array_equal(found, expected)
    assert_near(model.encode(TEXTS[:3]), encoded, error_of(model, dtype))
    tensor = model.encode(TEXTS[:3], dtype=torch.bfloat16, tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.bfloat16


def test_log_probabilities_are_float32_and_near(model: BiLM, dtype: torch.dtype) -> None:
    hidden = torch.randn(7, model.network.direction_width)
    head = model.network.head
    texts = model.reader.read(TEXTS)

    def results() -> list[Any]:
        state = hidden.to(next(model.parameters()).dtype)
        surprising = dict(surprises(model, texts))
        return [
            head.log_probabilities(state).detach(),
            [one.log_probability for one in score_texts(model, TEXTS)],
            np.concatenate([surprising[n].forward for n in range(len(TEXTS))]),
        ]

    expected = results()
    model.to(dtype)
    for one, exact in zip(results(), expected, strict=True):
        assert_near(one, exact, error_of(model, dtype))
    log_p = head.log_probabilities(hidden.to(dtype))
    assert log_p.dtype == torch.float32
    # Rounding to 16 bits would show here.
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(7), atol=1e-5, rtol=0)


def test_gradients_are_near(model: BiLM, dtype: torch.dtype) -> None:
    [expected] = model.embed(TEXTS[:1], kind="gradient")
    [found] = model.to(dtype).embed(TEXTS[:1], kind="gradient")

    assert found.vectors.dtype == np.float32
    # A gradient is a sum of many rounded numbers.
    error = np.linalg.norm(found.vectors - expected.vectors) / np.linalg.norm(expected.vectors)
    assert error < 3 * ERRORS[dtype]


@pytest.mark.parametrize("trainable", [False, True])
def test_an_embedder_returns_the_dtype_of_its_mixes(
    model: BiLM, dtype: torch.dtype, trainable: bool
) -> None:
    embedder = BiLMEmbedder(model, 2, layer_norm=True, trainable=trainable)
    expected, mask = embedder(TEXTS)
    moved = copy.deepcopy(embedder).to(dtype)
    found, _ = moved(TEXTS)

    for one, exact in zip(found, expected, strict=True):
        assert one.dtype == dtype
        assert_near(one[mask].detach(), exact[mask].detach(), error_of(model, dtype))
        assert one[~mask].abs().max() == 0
    found[0].float().square().sum().backward()
    assert all(mix.weights.grad is not None for mix in moved.mixes[:1])


def test_ids_and_ranks_keep_their_dtype(model: BiLM, dtype: torch.dtype) -> None:
    before = {name: buffer.dtype for name, buffer in model.named_buffers()}
    model.to(dtype)
    after = {name: buffer.dtype for name, buffer in model.named_buffers()}
    assert {n for n in before if before[n] != after[n]} <= {
        name for name in before if name.endswith("_forget")
    }


def test_a_long_text_is_as_near_as_a_short_one(dtype: torch.dtype) -> None:
    model = untrained(MODELS["char_cnn, adaptive softmax"])
    text = " ".join(TEXTS) + " "
    [expected] = model.embed([text * 100])  # several chunks
    [found] = model.to(dtype).embed([text * 100])
    assert_near(found.vectors, expected.vectors, error_of(model, dtype))


def test_word_vectors_of_elmo_for_many_langs(tmp_path: Path, dtype: torch.dtype) -> None:
    import_elmo([str(make_model(tmp_path / "theirs"))], f"{tmp_path}/model", None)
    model = BiLM.from_pretrained(tmp_path / "model")
    expected = vectors(model)
    found = vectors(model.to(dtype))

    assert found.dtype == np.float32
    assert_near(found, expected, error_of(model, dtype))
    (mixed,), _ = BiLMEmbedder(model).to(dtype)(TEXTS)
    assert mixed.dtype == dtype


def test_products_in_bf16_leave_the_weights_alone(model: BiLM) -> None:
    expected, scores = vectors(model), [one.log_probability for one in score_texts(model, TEXTS)]
    model.matmul_dtype = torch.bfloat16
    found = vectors(model)

    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert not np.array_equal(found, expected)
    assert_near(found, expected, error_of(model, torch.bfloat16))
    assert_near(
        [one.log_probability for one in score_texts(model, TEXTS)],
        scores,
        error_of(model, torch.bfloat16),
    )
    with torch.autocast("cpu", torch.float16):
        np.testing.assert_array_equal(vectors(model), found)
    # A frozen model, from texts and from input vectors.
    embedder = BiLMEmbedder(model, trainable=False)
    batch = embedder.batch(TEXTS[:3])
    (mixed,), _ = embedder(batch)
    inputs = model.input_vectors(batch.ids, batch.spellings)
    (again,), _ = embedder(batch, inputs)
    assert_near(again.detach(), mixed.detach(), error_of(model, torch.bfloat16))
    model.matmul_dtype = None
    # Vectors of words that were computed with products in bf16 are not used.
    np.testing.assert_array_equal(vectors(model), expected)


def test_gradients_with_products_in_bf16(model: BiLM) -> None:
    [expected] = model.embed(TEXTS[:1], kind="gradient")
    model.matmul_dtype = torch.bfloat16
    [found] = model.embed(TEXTS[:1], kind="gradient")
    error = np.linalg.norm(found.vectors - expected.vectors) / np.linalg.norm(expected.vectors)
    assert 0 < error < 3 * ERRORS[torch.bfloat16]
