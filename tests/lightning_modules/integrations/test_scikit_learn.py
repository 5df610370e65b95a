"""BiLMTransformer in scikit-learn: pipelines, cloning, grid search, other processes."""

import importlib.util
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from biloom import BiLM, BiLMTransformer
from lightning_modules.integrations import scikit_learn
from lightning_modules.vectors.selection import SelectionError
from lightning_modules.vectors.sentences import EmptyTextWarning
from preprocess.errors import UserError

ROOT = Path(__file__).parents[3]
TEXTS = ["kana loko", "mina teko", "nupu kako lona mi", "kana"] * 6
LABELS = ["a", "b", "b", "a"] * 6


@pytest.fixture(scope="module")
def path(trained: Path) -> str:
    return str(trained / "export")


def transformed(transformer: BiLMTransformer, texts: Any = TEXTS) -> Any:
    return transformer.fit(texts).transform(texts)


@pytest.mark.parametrize("layers", ["mean", "top", "concat", "all", 0, (0, 2)])
@pytest.mark.parametrize("pooling", [None, "direction"])
def test_vectors_are_those_of_encode(path: str, layers: Any, pooling: Any) -> None:
    found = transformed(BiLMTransformer(path, layers=layers, pooling=pooling, normalize=True))
    model = BiLM.from_pretrained(path)
    expected = model.encode(TEXTS, layers=layers, pooling=pooling, normalize=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


def test_a_text_without_tokens_is_a_row_of_zeros(path: str) -> None:
    with pytest.warns(EmptyTextWarning, match="1 of 2 texts have no tokens"):
        assert not transformed(BiLMTransformer(path, normalize=True), ["", "kana"])[0].any()
    assert transformed(BiLMTransformer(path), []).shape == (0, 24)


@pytest.mark.parametrize(
    "make", [list, tuple, np.array, lambda texts: np.array(texts, object), iter]
)
def test_columns_of_texts_are_read(path: str, make: Any) -> None:
    transformer = BiLMTransformer(path).fit(TEXTS)
    np.testing.assert_array_equal(transformer.transform(make(TEXTS)), transformed(transformer))


@pytest.mark.parametrize("texts", ["one text", [1.5], [None], np.zeros((2, 1)), [["a", 2]]])
def test_other_inputs_are_refused(path: str, texts: Any) -> None:
    with pytest.raises(TypeError, match="text"):
        BiLMTransformer(path).transform(texts)


def test_parameters_and_clones(path: str) -> None:
    transformer = BiLMTransformer(path, layers="mean").set_params(pooling="first")
    copied = clone(transformer)
    assert copied.get_params() == transformer.get_params()
    assert copied is not transformer
    model = BiLM.from_pretrained(path)
    assert clone(BiLMTransformer(model)).model is model, "the weights are shared"
    assert not hasattr(clone(transformer.fit(TEXTS)), "content_")


def test_a_clone_keeps_the_container_of_the_output(path: str) -> None:
    # Tried without pandas, which is not installed with scikit-learn.
    transformer: Any = BiLMTransformer(path, layers="mean").set_output(transform="pandas")
    copied: Any = clone(transformer)
    assert copied._sklearn_output_config == {"transform": "pandas"}
    copied.set_output(transform="default")
    assert transformer._sklearn_output_config == {"transform": "pandas"}
    assert len(copied.get_feature_names_out()) == copied.transform(TEXTS).shape[1]


def test_names_of_features(path: str) -> None:
    transformer = BiLMTransformer(path).fit(TEXTS)
    names = transformer.get_feature_names_out()
    assert len(names) == transformer.transform(TEXTS).shape[1] == 24
    assert names[0] == "bilmtransformer0"
    both = FeatureUnion(
        [("x", BiLMTransformer(path, layers="mean")), ("y", BiLMTransformer(path, layers=0))]
    )
    assert both.fit_transform(TEXTS).shape == (24, 16)
    assert len(both.get_feature_names_out()) == 16


def test_scikit_learns_own_checks(path: str) -> None:
    with pytest.warns(UserWarning, match="requires input  of type"):
        results = check_estimator(BiLMTransformer(path), on_fail="raise")
    assert any(one["status"] == "passed" for one in results)


def grid(path: str, jobs: int) -> GridSearchCV:
    pipeline = Pipeline([("vectors", BiLMTransformer(path)), ("classify", LogisticRegression())])
    choices = {
        "vectors__layers": ["mean", *np.arange(1), "concat"],
        "vectors__pooling": ["mean", "direction"],
    }
    return GridSearchCV(pipeline, choices, cv=2, n_jobs=jobs)


def test_a_grid_search_embeds_each_text_once_for_each_pooling(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[Any] = []
    iter_embed = BiLM.iter_embed

    def counted(self: BiLM, texts: Any, *arguments: Any, **options: Any) -> Any:
        texts = list(texts)
        embedded.extend(texts)
        return iter_embed(self, texts, *arguments, **options)

    scikit_learn._load.cache_clear()
    monkeypatch.setattr(BiLM, "iter_embed", counted)
    search = grid(path, 1).fit(TEXTS, LABELS)

    assert search.best_score_ > 0.9
    assert search.predict(TEXTS[:4]).tolist() == LABELS[:4]
    assert sorted(embedded) == sorted([*set(TEXTS)] * 2)


def test_the_cache_is_bounded_and_may_be_off(path: str) -> None:
    model = BiLM.from_pretrained(path)
    transformed(BiLMTransformer(model, cache_bytes=-1))
    cache = scikit_learn._cache_of(model)
    assert not cache._kept
    transformed(BiLMTransformer(model, cache_bytes=2 * 4 * model.depth * model.dim))
    assert len(cache._kept) == 2


def test_present_weights_are_read(path: str) -> None:
    model = BiLM.from_pretrained(path)
    before = transformed(BiLMTransformer(model))
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(0.5)
    after = transformed(BiLMTransformer(model))
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, model.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_jobs_give_the_same_scores(path: str, backend: str) -> None:
    expected = grid(path, 1).fit(TEXTS, LABELS).cv_results_["mean_test_score"]
    with parallel_config(backend):
        found = grid(path, 2).fit(TEXTS, LABELS).cv_results_["mean_test_score"]
    np.testing.assert_allclose(found, expected)


@pytest.mark.slow
def test_a_saved_pipeline_is_small_and_predicts_in_another_process(
    path: str, tmp_path: Path
) -> None:
    pipeline = make_pipeline(BiLMTransformer(path), LogisticRegression()).fit(TEXTS, LABELS)
    saved = pickle.dumps(pipeline)
    assert len(saved) < 5000
    (tmp_path / "pipeline").write_bytes(saved)
    script = (
        "import pickle, sys; pipeline = pickle.load(open(sys.argv[1], 'rb'));"
        "print(*pipeline.predict(sys.argv[2:]))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "pipeline", *TEXTS[:4]],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert printed.stdout.split() == LABELS[:4]


def test_another_model_in_the_same_folder_is_told(path: str, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "model")
    transformer = BiLMTransformer(tmp_path / "model").fit(TEXTS)
    transformer.content_ = "0" * 64
    with pytest.raises(UserError, match="this is another model than the one that the transformer was fitted with"):  # fmt: skip
        transformer.transform(TEXTS)


def test_a_model_folder_that_is_gone_is_not_answered_from_memory(path: str, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "model")
    transformer = BiLMTransformer(tmp_path / "model").fit(TEXTS)
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(UserError, match="no finished"):
        transformer.transform(TEXTS)


def test_bad_settings_are_told(path: str, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="this model has no layer 7"):
        BiLMTransformer(path, layers=7).fit(TEXTS)
    with pytest.raises(SelectionError, match="a BiLMTransformer has no learned mix; use mean, top"):
        BiLMTransformer(path, layers="mix").fit(TEXTS)
    with pytest.raises(SelectionError, match="pooling: 'max' is unknown"):
        BiLMTransformer(path, pooling="max").fit(TEXTS)  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match=r"layers: 1\.5 is unknown"):
        BiLMTransformer(path, layers=1.5).fit(TEXTS)  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="device: the model cannot be moved to 'nonsense'"):
        BiLMTransformer(path, device="nonsense").fit(TEXTS)
    with pytest.raises(UserError, match="no finished"):
        BiLMTransformer(tmp_path).fit(TEXTS)


def test_a_missing_scikit_learn_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    spec = importlib.util.spec_from_file_location("again", str(scikit_learn.__file__))
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(UserError, match=r"needs scikit-learn: pip install 'biloom\[tasks\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
