"""Static vectors: means, unknown and unused types, and principal components."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biloom import BiLM
from lightning_modules.distillation.errors import DistillationError
from lightning_modules.distillation.layer import TeacherLayer
from lightning_modules.distillation.static_table import StaticTable, reduced, static_table
from lightning_modules.distillation.type_sums import TypeSums, Uses
from preprocess.tokenizers.base import BOS, CONTROLS, EOS, UNKNOWN
from tests.exportable_models import make_model

FIRST = len(CONTROLS)


@pytest.fixture(scope="module", params=["embedding", "characters", "forward"])
def model(request: pytest.FixtureRequest) -> BiLM:
    return make_model(request.param)


def table_of(model: BiLM, texts: list[list[str]], layer: str = "average") -> StaticTable:
    teacher = TeacherLayer.parse(layer, model.depth)
    sums = TypeSums(model.tokenizer.vocabulary, model.dim)
    for one in model.embed(texts, layers=teacher.selection):
        sums.add(Uses(np.array([token.id for token in one.tokens], np.int64), one.vectors[0]))
    alone = 0

    def advance(number: int) -> None:
        nonlocal alone
        alone += number

    found = static_table(model, teacher, sums, advance)
    assert alone == found.alone
    return found


@pytest.mark.parametrize("layer", ["average", "top", "0"])
def test_a_vector_is_the_mean_of_the_uses(model: BiLM, layer: str) -> None:
    texts = [["w1", "w2", "w1"], ["w3", "w1", "other"], [], ["strange"]]
    found = table_of(model, texts, layer)
    uses: dict[int, list[np.ndarray]] = {}
    for one in model.embed(texts):
        layers = one.vectors.astype(np.float64)
        chosen = {"average": layers.mean(0), "top": layers[-1], "0": layers[0]}[layer]
        for token, vector in zip(one.tokens, chosen, strict=True):
            uses.setdefault(token.id, []).append(vector)
    assert (found.occurring, found.alone) == (3, 97)
    assert found.counts[UNKNOWN] == 2
    for id_, vectors in uses.items():
        np.testing.assert_allclose(found.vectors[id_], np.mean(vectors, 0), atol=1e-6)
    assert not found.vectors[[BOS, EOS]].any()


def test_a_type_without_uses_is_a_text_of_its_own(model: BiLM) -> None:
    found = table_of(model, [["w1"]])
    for number in (0, 7, 99):
        [alone] = model.embed([[f"w{number}"]], layers="mean")
        np.testing.assert_allclose(found.vectors[FIRST + number], alone.vectors[0, 0], atol=1e-6)


def test_the_unknown_token_without_uses_is_the_mean_of_rare_types(model: BiLM) -> None:
    found = table_of(model, [["w1", "w2", "w1", "w3"]])
    rare = found.vectors[[FIRST + 2, FIRST + 3]].mean(0)
    np.testing.assert_allclose(found.vectors[UNKNOWN], rare, atol=1e-6)
    found = table_of(model, [["w1", "w2", "w1", "w2", "w2"]])
    of_all = (2 * found.vectors[FIRST + 1] + 3 * found.vectors[FIRST + 2]) / 5
    np.testing.assert_allclose(found.vectors[UNKNOWN], of_all, atol=1e-6)


def test_texts_without_tokens_are_refused(model: BiLM) -> None:
    with pytest.raises(DistillationError, match=r"the texts have no tokens.*name texts with words"):
        table_of(model, [[], []])


@settings(max_examples=30)
@given(st.integers(2, 9), st.integers(5, 40), st.integers(0, 1 << 16))
def test_principal_components_are_those_of_the_singular_values(width, types, seed) -> None:
    draw = np.random.default_rng(seed)
    vectors = (draw.normal(size=(types, width)) * np.arange(1, width + 1)).astype(np.float32)
    vectors[[BOS, EOS]] = 0
    counts = draw.integers(0, 4, types)
    counts[[BOS, EOS]] = 0
    counts[-1] = 1
    dim = int(draw.integers(1, width))
    found = reduced(StaticTable(vectors, counts), dim)
    # A row for each use.
    uses = np.repeat(vectors, counts, 0).astype(np.float64)
    values = np.linalg.svd(uses - uses.mean(0), compute_uv=False)
    values = np.square(np.pad(values, (0, max(0, dim - len(values)))))
    squares = (np.square(found.vectors.astype(np.float64)) * counts[:, None]).sum(0)
    np.testing.assert_allclose(squares, values[:dim], rtol=1e-4, atol=1e-4)
    if values.sum() > 1e-3:
        np.testing.assert_allclose(found.kept, values[:dim].sum() / values.sum(), rtol=1e-6)
    assert not found.vectors[[BOS, EOS]].any()
    assert found.vectors.shape == (types, dim)


def test_the_signs_of_components_are_fixed() -> None:
    draw = np.random.default_rng(2)
    vectors = draw.normal(size=(50, 4)).astype(np.float32)
    one = reduced(StaticTable(vectors, np.ones(50, np.int64)), 2)
    # The components of the mirrored table are the same, so its vectors are mirrored.
    other = reduced(StaticTable(-vectors, np.ones(50, np.int64)), 2)
    np.testing.assert_allclose(one.vectors, -other.vectors, atol=1e-5)


@pytest.mark.parametrize("dim", [0, 4, 9, -1])
def test_a_number_of_components_that_is_not_possible_is_refused(dim: int) -> None:
    with pytest.raises(DistillationError, match=r"--dim: .* write a number from 1 to 3"):
        reduced(StaticTable(np.ones((9, 4), np.float32), np.ones(9, np.int64)), dim)
