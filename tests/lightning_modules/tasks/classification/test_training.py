"""Training of heads, with a frozen and with a fine-tuned language model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.tasks.classification.heads import TextHead, predict
from lightning_modules.tasks.classification.inputs import TextInputs, VectorInputs
from lightning_modules.tasks.classification.network_config import NetworkConfig
from lightning_modules.tasks.classification.objectives import Objective
from lightning_modules.tasks.classification.training import HeadRun, LabelledData, train_head
from lightning_modules.tasks.features import Features, features_of
from lightning_modules.tasks.fitting import FitError
from lightning_modules.tasks.folder import ModelReference
from lightning_modules.tasks.stored_task import Task
from lightning_modules.tasks.training_config import FinetuneConfig, FitConfig
from lightning_modules.tasks.tuning import TunedModel, tuned_model
from lightning_modules.vectors.pretrained import BiLM
from preprocess.files.manifest import Manifest
from preprocess.files.verified import DamagedResult

SMALL = {"hidden": 8, "filters": 8}
FIT = {"epochs": 6, "batch": 8, "learning_rate": 0.02}
TUNE = {"epochs": 3, "finetune": {"learning_rate": 0.01}}
TEXTS = [
    f"{word} {other}" for word in ("kana", "loko") for other in ("mipu", "tenu", "नו", "lo")
] * 5


def data_of(features: Features, truth: Any) -> LabelledData:
    return LabelledData(VectorInputs([features], 100), np.array(truth))


def planted(
    random_features: Callable[..., Features], count: int, seed: int
) -> tuple[Features, Any]:
    """Vectors whose label is the sign of one of the numbers of layer 1, at one unit."""
    features = random_features([1 + number % 5 for number in range(count)], seed)
    truth = []
    for number, vectors in enumerate(features):
        sign = number * 7 % 2
        vectors[1, -1, 2] = 6 if sign else -6
        truth.append(sign)
    return features, truth


def train(
    folder: Path, settings: dict[str, Any], *parts: LabelledData, **options: Any
) -> tuple[HeadRun, ...]:
    own = {name: value for name, value in settings.items() if name in NetworkConfig.model_fields}
    network = NetworkConfig.model_validate({"kind": "gru", **SMALL, **own})
    others = {name: value for name, value in settings.items() if name not in own}
    config = FitConfig.model_validate({**FIT, **others})
    objective = options.pop("objective", None) or Objective("single", parts[0].truth, 2)
    sizes = options.pop("sizes", (3, 6))
    seeds = options.pop("seeds", (1,))
    return train_head(
        network, config, objective, sizes, *parts, seeds, folder, device="cpu", **options
    )


@pytest.mark.parametrize("kind", ["lstm", "gru", "cnn"])
def test_a_head_learns_what_its_vectors_tell(
    tmp_path: Path, random_features: Callable[..., Features], kind: str
) -> None:
    parts = [data_of(*planted(random_features, count, count)) for count in (80, 40)]
    runs = train(tmp_path, {"kind": kind}, *parts, seeds=(1, 2))
    assert [run.seed for run in runs] == [1, 2]
    for run in runs:
        assert run.outputs.shape == (40, 2)
        assert (run.outputs.argmax(1) == parts[1].truth).mean() > 0.9
        # The layer that tells it gets the largest weight.
        assert np.argmax(run.layer_weights) == 1
        assert sum(run.layer_weights) == pytest.approx(1)
        assert run.history[run.best_epoch - 1]["dev_score"] == max(
            figures["dev_score"] for figures in run.history
        )
    assert not np.array_equal(runs[0].outputs, runs[1].outputs)
    config = NetworkConfig.model_validate({**SMALL, "kind": kind})
    head = TextHead(config, 3, 6, 2)
    head.load_state_dict(runs[0].tensors)
    again = predict(head, parts[1].inputs)
    np.testing.assert_array_equal(again, runs[0].outputs)


def test_shuffled_labels_are_not_learned(
    tmp_path: Path, random_features: Callable[..., Features]
) -> None:
    features, truth = planted(random_features, 80, 80)
    shuffled = np.random.default_rng(0).permutation(truth)
    parts = data_of(features, shuffled), data_of(*planted(random_features, 200, 200))
    [run] = train(tmp_path, {}, *parts)
    assert (run.outputs.argmax(1) == parts[1].truth).mean() < 0.7


def test_a_stopped_training_continues_with_the_same_result(
    tmp_path: Path, random_features: Callable[..., Features]
) -> None:
    parts = [data_of(*planted(random_features, count, count)) for count in (80, 40)]

    class Stop:
        def update(self, done: float, note: str = "") -> None:
            if done == 34:
                raise MemoryError

    with pytest.raises(MemoryError):
        train(tmp_path / "1", {}, *parts, progress=Stop())
    [resumed] = train(tmp_path / "1", {}, *parts)
    [whole] = train(tmp_path / "2", {}, *parts)
    assert resumed.history == whole.history
    np.testing.assert_array_equal(resumed.outputs, whole.outputs)
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name])
    with pytest.raises(FitError, match="other texts, labels or settings"):
        train(tmp_path / "1", {"dropout": 0.4}, *parts)
    with pytest.raises(FitError, match="other texts, labels or settings"):
        train(tmp_path / "1", {}, data_of(random_features([1] * 80), parts[0].truth), parts[1])


def test_progress_counts_the_batches_of_all_seeds(
    tmp_path: Path, random_features: Callable[..., Features]
) -> None:
    parts = [data_of(*planted(random_features, count, count)) for count in (16, 8)]
    shown: list[tuple[float, str]] = []

    class Bar:
        def update(self, done: float, note: str = "") -> None:
            shown.append((done, note))

    train(tmp_path, {"epochs": 2}, *parts, seeds=(1, 2), progress=Bar())
    assert [done for done, _ in shown] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert shown[-1][1].startswith("epoch 1, dev 0.")


def test_a_number_is_learned_in_its_own_unit(
    tmp_path: Path, random_features: Callable[..., Features]
) -> None:
    parts = []
    for count in (120, 60):
        features = random_features([3] * count, count)
        truth = [50 + 10 * float(vectors[2, :, 0].mean()) for vectors in features]
        parts.append(data_of(features, truth))
    objective = Objective("number", parts[0].truth, 0)
    [run] = train(tmp_path, {"epochs": 10, "dropout": 0.0}, *parts, objective=objective)
    assert np.corrcoef(run.outputs[:, 0], parts[1].truth)[0, 1] > 0.8
    assert run.outputs.mean() == pytest.approx(50, abs=3)


def texts_of(model: BiLM, texts: list[str], pairs: bool = False) -> LabelledData:
    truth = np.array([text.startswith("kana") for text in texts], np.int64)
    sides = [texts, texts[::-1]] if pairs else [texts]
    return LabelledData(TextInputs(model, "word", sides, 100), truth)


def test_a_language_model_is_tuned_with_its_head(tmp_path: Path, model: BiLM) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parts = texts_of(model, TEXTS), texts_of(model, TEXTS[::3])
    options: dict[str, Any] = {"tune": model, "sizes": (model.depth, model.dim)}
    [run] = train(tmp_path, TUNE, *parts, **options)
    assert (run.outputs.argmax(1) == parts[1].truth).mean() > 0.9
    # The model that was passed has not changed.
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    config = NetworkConfig.model_validate({"kind": "gru", **SMALL})
    head, tuned = TextHead(config, model.depth, model.dim, 2), TunedModel(model)
    own = {n: t for n, t in run.tensors.items() if not n.startswith("bilm.")}
    head.load_state_dict(own)
    weights = {n.removeprefix("bilm."): t for n, t in run.tensors.items() if n not in own}
    tuned.model.network.load_state_dict(weights)
    np.testing.assert_array_equal(predict(head, parts[1].inputs, tuned), run.outputs)
    # The tuned model embeds texts as any model does.
    features = features_of(tuned.model, None, TEXTS[::3], "word")
    outputs = predict(head, VectorInputs([features], 100))
    np.testing.assert_allclose(outputs, run.outputs, atol=1e-4)
    assert not any(name.startswith("bilm.head") for name in run.tensors)


def test_a_stopped_tuning_continues_with_the_same_result(tmp_path: Path, model: BiLM) -> None:
    parts = texts_of(model, TEXTS), texts_of(model, TEXTS[::3])
    options: dict[str, Any] = {"tune": model, "sizes": (model.depth, model.dim)}

    class Stop:
        def update(self, done: float, note: str = "") -> None:
            if done == 8:
                raise MemoryError

    with pytest.raises(MemoryError):
        train(tmp_path / "1", TUNE, *parts, progress=Stop(), **options)
    [resumed] = train(tmp_path / "1", TUNE, *parts, **options)
    [whole] = train(tmp_path / "2", TUNE, *parts, **options)
    np.testing.assert_array_equal(resumed.outputs, whole.outputs)
    assert resumed.history == whole.history


def test_lower_layers_have_lower_rates(model: BiLM) -> None:
    tuned = TunedModel(model)
    groups = tuned.parameter_groups(FinetuneConfig(learning_rate=0.4, layer_decay=2))
    assert [group["lr"] for group in groups] == [0.4, 0.2, 0.1]
    top, bottom = groups[0]["params"][0], groups[-1]["params"][0]
    assert bottom is tuned.model.network.input.embedding.weight
    assert top is next(tuned.model.network.recurrent.layers[-1].parameters())
    weights = {id(weight) for group in groups for weight in group["params"]}
    assert weights == {id(weight) for weight in tuned.parameters()}


def test_texts_that_are_tuned_on_are_cut(model: BiLM) -> None:
    texts = ["kana loko mipu tenu", "kana", ["kana", "loko", "mipu"]]
    inputs = TextInputs(model, "word", [texts], 2)
    assert (inputs.cut, inputs.lengths.tolist()) == (2, [2, 1, 2])
    [batch] = inputs.batch([0, 1, 2])
    assert batch.units.tolist() == [2, 1, 2]
    assert batch.texts[0].text.split() == ["kana", "loko"]
    assert inputs.content != TextInputs(model, "word", [texts], 3).content


def test_the_weights_of_another_model_are_refused(model: BiLM) -> None:
    tensors = {"bilm.input.embedding.weight": torch.zeros(2, 2)}
    manifest = Manifest("classify train", 1, "", "", "", {}, (), {})
    reference = ModelReference(model.content)
    task = Task("folder", manifest, "classify", None, (), tensors, {}, reference, bundled=False)
    match = r"^folder/head\.safetensors is damaged \(no tensor 'bilm\."
    with pytest.raises(DamagedResult, match=match):
        tuned_model(task, model)
