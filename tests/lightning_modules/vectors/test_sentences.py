"""BiLM.encode and BiLM.similarity."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from biloom import BiLM
from lightning_modules.vectors.selection import SelectionError
from lightning_modules.vectors.sentences import EmptyTextWarning

TEXTS = ["kana loko", ["mina", "teko"], "nupu kako lona mi", "kana"]


@pytest.fixture(scope="module")
def model(trained: Path) -> BiLM:
    return BiLM.from_pretrained(trained / "export")


@pytest.mark.parametrize(
    ("layers", "size"), [("mean", 8), ("top", 8), (0, 8), (-1, 8), ([0, 2], 16), ("concat", 24), ("all", 24)]
)  # fmt: skip
@pytest.mark.parametrize("pooling", [None, "direction"])
def test_a_text_has_the_vector_that_embed_gives_it(
    model: BiLM, layers: Any, size: int, pooling: Any
) -> None:
    found = model.encode(TEXTS, layers=layers, pooling=pooling)
    chosen = [layers] if isinstance(layers, int) else layers
    embeddings = model.embed(TEXTS, unit="sentence", layers=chosen, pooling=pooling)

    assert found.shape == (4, size)
    assert found.dtype == np.float32
    for row, expected in zip(found, embeddings, strict=True):
        np.testing.assert_allclose(row, expected.vectors.reshape(-1), atol=1e-6)


@pytest.mark.parametrize("layers", [np.int64(2), np.array([2]), range(2, 3), np.str_("top")])
def test_layers_may_be_of_other_types(model: BiLM, layers: Any) -> None:
    expected = model.encode(TEXTS, layers="top")
    np.testing.assert_array_equal(model.encode(TEXTS, layers=layers), expected)


def test_all_layers_of_the_mean_of_the_tokens_are_the_default(model: BiLM) -> None:
    [tokens] = model.embed(TEXTS[2:3])
    expected = tokens.vectors.mean(1).reshape(-1)
    np.testing.assert_allclose(model.encode(TEXTS)[2], expected, atol=1e-6)


def test_a_text_without_tokens_is_a_row_of_zeros_and_counted(model: BiLM) -> None:
    texts = ["", *TEXTS, " "]
    with pytest.warns(
        EmptyTextWarning, match="^2 of 6 texts have no tokens; their vectors are 0$"
    ) as found:
        vectors = model.encode(texts, normalize=True)

    assert found[0].filename == __file__
    assert not vectors[[0, -1]].any()
    np.testing.assert_allclose(np.linalg.norm(vectors[1:-1], axis=1), 1, rtol=1e-5)
    assert model.encode([]).shape == (0, 24)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_result_is_a_tensor_of_any_dtype(model: BiLM, dtype: torch.dtype) -> None:
    found = model.encode(TEXTS, tensor=True, dtype=dtype, device="cpu")
    assert isinstance(found, torch.Tensor)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.float().numpy(), model.encode(TEXTS), atol=0.02)


def test_numpy_has_no_bfloat16(model: BiLM) -> None:
    with pytest.raises(SelectionError, match="NumPy has no bfloat16; pass tensor=True"):
        model.encode(TEXTS, dtype=torch.bfloat16)


def test_one_string_has_one_vector(model: BiLM) -> None:
    found = model.encode(TEXTS[0], layers="mean", normalize=True)
    np.testing.assert_array_equal(found, model.encode(TEXTS[:1], layers="mean", normalize=True)[0])
    assert model.similarity(found, model.encode(TEXTS, layers="mean")).shape == (1, 4)


@pytest.mark.parametrize("device", ["nonsense", "meta:7:7", "cuda:99"])
def test_a_device_that_torch_does_not_have_is_told(model: BiLM, device: str) -> None:
    with pytest.raises(SelectionError, match=f"^device: the model cannot be moved to '{device}'"):
        model.encode(TEXTS, device=device)


def test_a_stream_is_encoded_and_progress_goes_to_standard_error(
    model: BiLM, capsys: pytest.CaptureFixture[str]
) -> None:
    found = model.encode((text for text in TEXTS), progress=True)
    np.testing.assert_array_equal(found, model.encode(TEXTS))
    printed = capsys.readouterr()
    assert "100%" in printed.err
    assert not printed.out


def test_similarity_is_the_cosine(model: BiLM) -> None:
    a = np.array([[3.0, 4.0], [0.0, 0.0], [-3.0, -4.0]])
    b = np.array([[4.0, -3.0], [6.0, 8.0]])
    np.testing.assert_allclose(model.similarity(a, b), [[0, 1], [0, 0], [0, -1]], atol=1e-6)
    found = model.similarity(torch.from_numpy(a))
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.numpy(), [[1, 0, -1], [0, 0, 0], [-1, 0, 1]], atol=1e-6)


def test_similarity_compares_vectors_of_one_size(model: BiLM) -> None:
    with pytest.raises(SelectionError, match=r"not \(3, 1, 1\); pass the result of `encode`"):
        model.similarity(np.ones((3, 1, 1)))
    with pytest.raises(SelectionError, match="have the sizes 3 and 2; encode both with the same"):
        model.similarity(np.ones((1, 3)), np.ones((1, 2)))
