"""ONNX files: ONNX Runtime computes the vectors of the model, whatever the batch and the lengths."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.models.model_settings import ModelSettings
from lightning_modules.models.smaller.parts import Parts
from lightning_modules.models.smaller.reduce import reduce_model
from lightning_modules.models.smaller.request import Reduction
from lightning_modules.models.stored_network import network_of_weights
from lightning_modules.portable import onnx_file as module
from lightning_modules.portable.errors import PortableError
from lightning_modules.portable.feeds import feeds_of
from lightning_modules.portable.onnx_file import onnx_file
from preprocess.text.config import CleaningConfig
from tests.exportable_models import MODELS, make_model, texts_of

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
SHAPES = [(1, 1), (1, 2), (2, 1), (3, 7), (1, 300), (8, 40)]
TOLERANCE = 2e-6
"""Largest difference of a value; those of layers 1 and up are below 1, those of layer 0 below 5."""


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_that_of_the_embedder(name: str) -> None:
    model = make_model(name)
    data = onnx_file(model)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    session = onnxruntime.InferenceSession(data)
    for batch, time in SHAPES:
        texts = texts_of(batch, time)
        (layers,) = session.run(None, feeds_of(model, texts))
        for row, embedding in enumerate(model.embed(texts)):
            found = layers[:, row, : len(texts[row])]
            assert found.shape == embedding.vectors.shape
            # HGRN2 divides by a root mean square, so its layers are not below 1.
            tolerance = TOLERANCE * (4 if name == "hgrn2" else 1)
            np.testing.assert_allclose(found, embedding.vectors, rtol=0, atol=tolerance)


def lowest_layer(model: BiLM, name: str) -> BiLM:
    """Return a model with the lowest recurrent layer of a model of `MODELS` only."""
    settings = ModelSettings(
        model=ModelConfig.model_validate(MODELS[name]),
        vocabulary=model.tokenizer.vocabulary,
        cutoffs=(20, 50),
        boundary="bos_eos",
        cleaning=CleaningConfig(),
        head=False,
    )
    parts = Parts(settings, model.network.state_dict(), model.tokenizer)
    kept = reduce_model(parts, Reduction(layers=1)).parts
    network = network_of_weights(kept.settings, kept.weights)
    return BiLM(network, kept.tokenizer, settings.cleaning, settings.boundary)


@pytest.mark.parametrize("name", ["characters", "gru", "hgrn2"])
def test_kept_layers_of_a_smaller_model_are_equal_to_the_bit(name: str) -> None:
    full = make_model(name)
    texts = texts_of(3, 9)
    layers = [
        onnxruntime.InferenceSession(onnx_file(model)).run(None, feeds_of(model, texts))[0]
        for model in (full, lowest_layer(full, name))
    ]
    np.testing.assert_array_equal(layers[1], layers[0][:2])


def test_a_stream_is_the_forward_half() -> None:
    model = make_model("characters")
    session = onnxruntime.InferenceSession(onnx_file(model, "stream"))
    texts = texts_of(2, 11)
    feeds = feeds_of(model, texts)
    lengths, whole = feeds["lengths"], model.embed(texts)
    half = model.network.direction_width
    state = np.zeros((2, 2, model.network.zero_state(1).shape[3]), np.float32)
    for start in range(0, 12, 4):
        part = feeds | {
            "ids": feeds["ids"][:, start : start + 4],
            "lengths": (lengths - start).clip(0, 4),
            "begins": np.full(2, start == 0),
            "state": state,
        }
        layers, state = session.run(["layers", "state_after"], part)
        for row, length in enumerate(part["lengths"].tolist()):
            vectors = whole[row].vectors[:, start : start + length, :half]
            np.testing.assert_allclose(layers[:, row, :length], vectors, rtol=0, atol=TOLERANCE)


def test_the_axes_have_names_and_no_path_is_recorded() -> None:
    data = onnx_file(make_model("characters"), "stream")
    graph = onnx.load_from_string(data).graph
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "ids": ["batch", "time"],
        "lengths": ["batch"],
        "begins": ["batch"],
        "state": [2, "batch", 36],
        "characters": ["words", "columns"],
        "layers": [3, "batch", "time", 12],
        "state_after": [2, "batch", 36],
    }
    for word in (str(ROOT), "site-packages", ".py"):
        assert word.encode() not in data


def test_the_bytes_are_the_same_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys, hashlib\n"
        "from tests.exportable_models import make_model\n"
        "from lightning_modules.portable.onnx_file import onnx_file\n"
        "print(hashlib.sha256(onnx_file(make_model('embedding'))).hexdigest())\n"
    )
    hashes = {hashlib.sha256(onnx_file(make_model("embedding"))).hexdigest()}
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        hashes.add(done.stdout.strip())
    assert len(hashes) == 1


def test_a_model_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(
        PortableError, match=r"the model has 0.0 GB of weights, but an ONNX file holds"
    ):
        onnx_file(make_model("gru"))
