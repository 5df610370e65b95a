"""The layer that is averaged, and where a cache has it."""

from typing import Any

import numpy as np
import pytest

from lightning_modules.distillation.errors import DistillationError
from lightning_modules.distillation.layer import TeacherLayer


@pytest.mark.parametrize(
    ("written", "number", "name"),
    [("average", None, "average"), ("top", 2, "2"), ("0", 0, "0"), ("-1", 2, "2"), ("1", 1, "1")],
)
def test_a_layer_is_a_name_or_a_number(written: str, number: int | None, name: str) -> None:
    layer = TeacherLayer.parse(written, 3)
    assert (layer.number, layer.name) == (number, name)
    layers = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    expected = layers.mean(0) if number is None else layers[number]
    np.testing.assert_array_equal(layer.of_all(layers), expected)


@pytest.mark.parametrize("written", ["3", "-4", "mean", "", "1.0"])
def test_a_layer_that_does_not_exist_is_refused(written: str) -> None:
    with pytest.raises(DistillationError, match=r"no layer of this model; .* 0 \(the input\) to 2"):
        TeacherLayer.parse(written, 3)


@pytest.mark.parametrize(
    ("stored", "written", "place"),
    [
        ("all", "1", 1),
        ("all", "average", None),
        ("mean", "average", 0),
        ("top", "2", 0),
        ([2, 0], "0", 1),
        ([-1], "top", 0),
    ],
)
def test_a_cache_of_some_layers_has_the_layer(stored: Any, written: str, place: Any) -> None:
    assert TeacherLayer.parse(written, 3).place_in("cache", {"layers": stored}) == place


@pytest.mark.parametrize(
    ("stored", "written", "wanted"),
    [
        ("top", "0", "layer 0"),
        ("top", "average", "the average of all layers"),
        ([0, 1, 2], "average", "the average of all layers"),
        ([0, 1], "top", "layer 2"),
        ("concat", "1", "layer 1"),
        ("mix", "average", "the average of all layers"),
        ("mean", "1", "layer 1"),
    ],
)
def test_a_cache_without_the_layer_is_refused(stored: Any, written: str, wanted: str) -> None:
    with pytest.raises(DistillationError, match=f"does not contain {wanted}; choose another"):
        TeacherLayer.parse(written, 3).place_in("cache", {"layers": stored})
