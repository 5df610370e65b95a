"""Principal components and t-SNE."""

import sys

import numpy as np
import pytest

from lightning_modules.tasks.probing.projection import (
    ProjectionError,
    principal_components,
    t_sne,
)


def test_principal_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    rows = np.random.default_rng(0).standard_normal((30, 5)).astype("f4") * [5, 3, 1, 1, 1]
    model = PCA(2, svd_solver="full").fit(rows)
    found = principal_components(rows.astype("f4"))
    np.testing.assert_allclose(np.abs(found.points), np.abs(model.transform(rows)), atol=1e-4)
    np.testing.assert_allclose(found.shares, model.explained_variance_ratio_, atol=1e-5)


def test_the_sign_of_an_axis_is_fixed():
    rows = np.random.default_rng(0).standard_normal((9, 3)).astype("f4")
    turned = principal_components(rows[::-1].copy())
    np.testing.assert_allclose(principal_components(rows).points, turned.points[::-1], atol=1e-5)


def test_few_or_equal_vectors():
    one_axis = principal_components(np.array([[1.0], [3.0]], "f4"))
    np.testing.assert_allclose(one_axis.points, [[-1, 0], [1, 0]])
    assert not principal_components(np.ones((4, 3), "f4")).points.any()
    for number, told in ((0, "none"), (1, "one")):
        with pytest.raises(ProjectionError, match=f"at least two points, and there is {told}"):
            principal_components(np.ones((number, 3), "f4"))


@pytest.mark.filterwarnings("ignore")
def test_t_sne_separates_groups_and_repeats():
    pytest.importorskip("openTSNE")
    random = np.random.default_rng(0)
    rows = random.standard_normal((40, 6)).astype("f4")
    rows[:20, 0] += 30
    found = t_sne(rows, 30, 1).points
    middle = found[:20].mean(0), found[20:].mean(0)
    spread = max(np.linalg.norm(found[:20] - middle[0], axis=1).max(), 1e-9)
    assert np.linalg.norm(middle[0] - middle[1]) > spread
    np.testing.assert_array_equal(found, t_sne(rows, 30, 1).points)


def test_t_sne_needs_its_library_and_points(monkeypatch):
    with pytest.raises(ProjectionError, match="needs at least 5 points, and there are 4"):
        t_sne(np.ones((4, 3), "f4"), 30, 1)
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    with pytest.raises(ProjectionError, match=r"pip install 'biloom\[maps\]'"):
        t_sne(np.ones((9, 3), "f4"), 30, 1)
