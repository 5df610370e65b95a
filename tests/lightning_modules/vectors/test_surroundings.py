"""Vectors and scores do not depend on what surrounds a model: modes, optimisers, dtypes, processes."""

import copy
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, parametrize, prune, vector_to_parameters

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.evaluation.scoring import score_texts
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.vectors.streams import VectorError
from preprocess.config import WordConfig
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.load import train_tokenizer

TEXTS = ["The cat sat on the mat .", "A dog ran to the cat , twice .", "Tout été , naïve 字"]
SPELLING = {"kind": "char_cnn", "dim": 4, "max_characters": 12, "filters": [[1, 4], [3, 9]], "dropout": 0.5}  # fmt: skip
LSTM = {"hidden": 12, "projection": 6, "dropout": 0.5, "weight_drop": 0.5}
KINDS: dict[str, dict[str, Any]] = {
    "spellings, sampled": {
        "input": SPELLING,
        "head": {"kind": "sampled_softmax", "samples": 4},
    },
    "ids, sampled, tied": {
        "input": {"kind": "embedding", "dropout": 0.5, "type_dropout": 0.5},
        "head": {"kind": "sampled_softmax", "samples": 4},
        "tied": True,
    },
    "adaptive, tied": {
        "input": {"kind": "adaptive", "dropout": 0.5},
        "tied": True,
    },
    "gru, variational": {
        "recurrent": {"kind": "gru", "hidden": 6, "dropout": 0.5, "variational": True, "weight_drop": 0.5},
        "head": {"kind": "softmax"},
    },
    "hgrn2, variational": {
        "recurrent": {"kind": "hgrn2", "hidden": 6, "expansion": 3, "dropout": 0.5, "variational": True},
    },
    "sru": {"recurrent": {"kind": "sru", "hidden": 6, "dropout": 0.5}},
}  # fmt: skip


class Parent(nn.Module):
    """Somebody's model with a language model inside."""

    def __init__(self, model: BiLM) -> None:
        super().__init__()
        self.model, self.top = model, nn.Linear(12, 2)


def untrained(**sections: Any) -> BiLM:
    torch.manual_seed(1)
    made = train_tokenizer(WordConfig(), TEXTS * 9)
    config = ModelConfig.model_validate({"recurrent": {"kind": "lstm", **LSTM}} | sections)
    cutoffs = (8, 14) if config.head.kind == "adaptive_softmax" else ()
    return BiLM(BiLMNetwork(config, made.vocabulary, cutoffs), made, CleaningConfig(), "bos_eos")


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> BiLM:
    return untrained(**KINDS[request.param])


@pytest.fixture
def spelled() -> BiLM:
    return untrained(input=SPELLING)


def vectors(model: BiLM) -> np.ndarray[Any, Any]:
    return np.concatenate([one.vectors for one in model.embed(TEXTS)], 1)


def scores(model: BiLM) -> list[float]:
    return [one.log_probability for one in score_texts(model, TEXTS)]


def fresh(model: BiLM) -> np.ndarray[Any, Any]:
    """Return the vectors of the same weights in a model that has no vectors of words yet."""
    again = BiLM(model.network, model.tokenizer, CleaningConfig(), "bos_eos")
    found: np.ndarray[Any, Any] = vectors(again)
    return found


def test_vectors_and_scores_are_the_same_in_training_mode(model: BiLM) -> None:
    expected, log_probabilities = vectors(model), scores(model)
    parent = Parent(model)
    parent.train()
    before = torch.get_rng_state()

    np.testing.assert_array_equal(vectors(model), expected)
    assert scores(model) == log_probabilities
    assert all(part.training for part in parent.modules()), "the mode is left alone"
    assert torch.equal(torch.get_rng_state(), before)


def test_a_new_model_is_in_evaluation_mode(model: BiLM) -> None:
    assert not any(part.training for part in model.modules())


def test_the_forward_pass_has_dropout_in_training_mode_only(model: BiLM) -> None:
    ids, lengths = torch.tensor([[4, 5, 6, 7]]), torch.tensor([4])
    first = model(ids, lengths)
    assert torch.equal(model(ids, lengths), first)
    Parent(model).train()

    assert not torch.equal(model(ids, lengths), first)
    assert not torch.equal(model(ids, lengths), model(ids, lengths))
    model.eval()
    assert torch.equal(model(ids, lengths), first)


def _fused(network: nn.Module, change: Tensor) -> None:
    parameters = list(network.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1.0, fused=True)
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, -0.3)
    optimizer.step()


def _data(network: nn.Module, change: Tensor) -> None:
    for parameter in network.parameters():
        parameter.data = parameter.data + change


def _data_in_place(network: nn.Module, change: Tensor) -> None:
    for parameter in network.parameters():
        parameter.data.copy_(parameter.data + change)


def _numpy(network: nn.Module, change: Tensor) -> None:
    for parameter in network.parameters():
        parameter.detach().numpy()[...] += 0.3


def _assigned(network: nn.Module, change: Tensor) -> None:
    weights = {
        k: v + change if v.is_floating_point() else v for k, v in network.state_dict().items()
    }
    network.load_state_dict(weights, assign=True)


def _foreach(network: nn.Module, change: Tensor) -> None:
    with torch.no_grad():
        torch._foreach_add_(list(network.parameters()), 0.3)


def _vector(network: nn.Module, change: Tensor) -> None:
    with torch.no_grad():
        vector_to_parameters(
            parameters_to_vector(network.parameters()) + change, network.parameters()
        )


def _swapped(network: nn.Module, change: Tensor) -> None:
    average = [parameter.detach() + change for parameter in network.parameters()]
    for parameter, mean in zip(network.parameters(), average, strict=True):
        parameter.data, mean.data = mean.data, parameter.data


def _preserved_version(network: nn.Module, change: Tensor) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            with torch.autograd._unsafe_preserve_version_counter(parameter):
                parameter.add_(change)


CHANGES: list[Callable[[nn.Module, Tensor], None]] = [
    _fused, _data, _data_in_place, _numpy, _assigned, _foreach, _vector, _swapped, _preserved_version
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_vectors_and_scores_follow_weights_however_they_change(
    model: BiLM, change: Callable[[nn.Module, Tensor], None]
) -> None:
    before, former = vectors(model), scores(model)
    change(model.network, torch.tensor(0.3))

    found = vectors(model)
    assert (np.abs(found - before).max((1, 2)) > 0.01).all(), "each layer is another"
    np.testing.assert_allclose(found, fresh(model), atol=1e-6)
    again = BiLM(copy.deepcopy(model.network), model.tokenizer, CleaningConfig(), "bos_eos")
    np.testing.assert_allclose(scores(model), scores(again), rtol=1e-5)
    assert scores(model) != former


def test_a_replaced_network_is_used(model: BiLM) -> None:
    before, other = vectors(model), copy.deepcopy(model.network)
    _data(other, torch.tensor(0.3))
    model.network = other

    found = vectors(model)
    assert np.abs(found - before).max() > 0.01
    np.testing.assert_allclose(found, fresh(model), atol=1e-6)


def test_a_replaced_input_encoder_is_used(spelled: BiLM) -> None:
    before, other = vectors(spelled), copy.deepcopy(spelled.network.input)
    _data(other, torch.tensor(0.3))
    spelled.network.input = other

    found = vectors(spelled)
    assert np.abs(found - before).max() > 0.01
    np.testing.assert_allclose(found, fresh(spelled), atol=1e-6)


def test_precomputed_vectors_are_not_used_with_other_weights(spelled: BiLM) -> None:
    wrong = torch.zeros(spelled.tokenizer.vocabulary, 6)
    given = BiLM(
        spelled.network, spelled.tokenizer, CleaningConfig(), "bos_eos", type_vectors=wrong
    )
    assert not vectors(given)[0].any()
    _data_in_place(spelled.network, torch.tensor(0.3))

    np.testing.assert_array_equal(vectors(given), fresh(spelled))


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_parametrised_weights_are_read(model: BiLM) -> None:
    expected = copy.deepcopy(model)
    before = vectors(model)
    names = [name for name, _ in model.network.named_parameters()]
    for name in names:
        owner, _, attribute = name.rpartition(".")
        part = model.network.get_submodule(owner)
        if isinstance(part, nn.ParameterList):
            continue
        parametrize.register_parametrization(part, attribute, Doubled())
        with torch.no_grad():
            expected.network.get_parameter(name).mul_(2)

    assert not np.allclose(vectors(model), before)
    np.testing.assert_allclose(vectors(model), vectors(expected), atol=1e-6)
    np.testing.assert_allclose(scores(model), scores(expected), rtol=1e-5)


def test_pruned_weights_are_read(spelled: BiLM) -> None:
    parts = [part for part in spelled.modules() if isinstance(part, nn.Linear | nn.Embedding)]
    for part in parts:
        prune.random_unstructured(part, "weight", 0.5)
    prune.random_unstructured(spelled.network.input, "bias", 0.5)
    vectors(spelled)
    _data_in_place(spelled.network, torch.tensor(0.3))
    pruned = spelled.network.state_dict()
    weights = {
        name.removesuffix("_orig"): pruned[name] * pruned[f"{name.removesuffix('orig')}mask"]
        if name.endswith("_orig")
        else pruned[name]
        for name in pruned
        if not name.endswith("_mask")
    }
    expected = untrained(input=SPELLING)
    expected.network.load_state_dict(weights)

    np.testing.assert_allclose(vectors(spelled), vectors(expected), atol=1e-6)


def test_hooks_of_the_input_encoder_are_called_for_every_text(spelled: BiLM) -> None:
    before = vectors(spelled)
    factor = 2.0
    with spelled.network.input.register_forward_hook(lambda _, __, x: factor * x):
        np.testing.assert_allclose(vectors(spelled)[0], 2 * before[0], rtol=1e-6)
        factor = 3.0
        np.testing.assert_allclose(vectors(spelled)[0], 3 * before[0], rtol=1e-6)
    np.testing.assert_array_equal(vectors(spelled), before)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-6), (torch.bfloat16, 0.1), (torch.float16, 0.01)],
)
def test_models_of_another_dtype_give_float32_vectors(
    model: BiLM, dtype: torch.dtype, tolerance: float
) -> None:
    expected, log_probabilities = vectors(model), scores(model)
    model.to(dtype)
    found = vectors(model)

    assert found.dtype == np.float32
    if model.network.recurrent.config.kind == "hgrn2":
        tolerance *= 4  # it divides by a root mean square
    np.testing.assert_allclose(found, expected, atol=tolerance)
    np.testing.assert_allclose(scores(model), log_probabilities, rtol=tolerance)
    layers = model(torch.tensor([[4, 5, 6]]), torch.tensor([3]))
    assert layers.dtype == dtype
    layers.float().square().sum().backward()
    assert not np.array_equal(found[0], expected[0]) or dtype == torch.float64
    model.to(torch.float32)
    np.testing.assert_allclose(vectors(model), expected, atol=tolerance)


def _autocast() -> Any:
    return torch.autocast("cpu", torch.bfloat16)


class _DefaultDtype:
    def __enter__(self) -> None:
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(torch.float32)


class _Deterministic:
    def __enter__(self) -> None:
        torch.use_deterministic_algorithms(True)

    def __exit__(self, *_: object) -> None:
        torch.use_deterministic_algorithms(False)


AROUND: dict[str, Callable[[], Any]] = {
    "autocast": _autocast,
    "default dtype": _DefaultDtype,
    "default device": lambda: torch.device("meta"),
    "deterministic": _Deterministic,
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "gradients": torch.enable_grad,
}


@pytest.mark.parametrize("around", AROUND)
def test_settings_of_torch_change_nothing(model: BiLM, around: str) -> None:
    expected, log_probabilities = fresh(model), scores(model)
    mixed = model.embed(TEXTS, layers="mix")[0].vectors
    with AROUND[around]():
        np.testing.assert_array_equal(vectors(model), expected)
        assert scores(model) == log_probabilities
        np.testing.assert_array_equal(model.embed(TEXTS, layers="mix")[0].vectors, mixed)
    np.testing.assert_array_equal(vectors(model), expected)


@pytest.mark.parametrize("around", AROUND)
def test_a_model_is_loaded_whatever_surrounds_it(trained: Path, around: str) -> None:
    expected = vectors(BiLM.from_pretrained(trained / "export"))
    before = torch.get_rng_state()
    with AROUND[around]():
        loaded = BiLM.from_pretrained(trained / "export")

    assert torch.equal(torch.get_rng_state(), before), "torch's generator is left alone"
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert {weight.device.type for weight in (*loaded.parameters(), *loaded.buffers())} == {"cpu"}
    np.testing.assert_array_equal(vectors(loaded), expected)
    assert all(weight.requires_grad for weight in loaded.parameters())
    loaded(torch.tensor([[4, 5]]), torch.tensor([2])).sum().backward()


def test_a_model_built_under_inference_mode_embeds(model: BiLM) -> None:
    with torch.inference_mode():
        built = copy.deepcopy(model)
        assert all(weight.is_inference() for weight in built.parameters())
    np.testing.assert_array_equal(vectors(built), vectors(model))
    assert scores(built) == scores(model)


def test_copies_and_pickles_are_independent(model: BiLM) -> None:
    expected = vectors(model)
    copied, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    assert len(pickle.dumps(model)) < 1 << 22, "without the vectors of words"
    _data_in_place(model.network, torch.tensor(0.3))

    for other in (copied, pickled):
        np.testing.assert_array_equal(vectors(other), expected)
        _data(other.network, torch.tensor(0.3))
        np.testing.assert_allclose(vectors(other), vectors(model), atol=1e-6)
        assert scores(other) == scores(model)


def test_loaded_models_are_copied_and_pickled(trained: Path) -> None:
    model = BiLM.from_pretrained(trained / "export")  # whose vocabulary is memory-mapped
    expected = vectors(model)
    pickled = pickle.loads(pickle.dumps(model))
    averaged = torch.optim.swa_utils.AveragedModel(model)

    for other in (pickled, copy.deepcopy(model), averaged.module):
        np.testing.assert_array_equal(vectors(other), expected)
    assert pickled.tokenizer.spelling(7) == model.tokenizer.spelling(7)


def test_frozen_and_shared_weights_are_embedded(model: BiLM) -> None:
    expected = vectors(model)
    model.requires_grad_(False).share_memory()

    np.testing.assert_array_equal(vectors(model), expected)


def test_threads_share_a_model(model: BiLM) -> None:
    expected = vectors(model)
    Parent(model).train()
    if model.encoder._types:
        model.encoder._types._kept_bytes = 24 * 8  # the cache is emptied again and again
    done = threading.Event()

    def toggle() -> None:
        while not done.is_set():
            model.train()
            model.eval()

    toggler = threading.Thread(target=toggle)
    toggler.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: vectors(model), range(24)):
                np.testing.assert_array_equal(found, expected)
    finally:
        done.set()
        toggler.join()


@pytest.fixture
def two_threads() -> Iterator[None]:
    """With GNU OpenMP, a forked process hangs in a computation on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.randn(512, 512) @ torch.randn(512, 512)
    yield
    torch.set_num_threads(before)


def _embed_in_a_process(model: BiLM, results: Any) -> None:
    results.put(vectors(model))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_data_workers_embed(spelled: BiLM, method: str, two_threads: None) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    expected = vectors(spelled)
    context = multiprocessing.get_context(method)
    results = context.Queue()
    types = spelled.encoder._types
    assert types is not None
    with types._lock:  # as another thread might at this moment
        worker = context.Process(target=_embed_in_a_process, args=(spelled, results))
        worker.start()
        found = results.get(timeout=60)
        worker.join(60)

    assert worker.exitcode == 0
    np.testing.assert_array_equal(found, expected)
    assert os.getpid() != worker.pid


@pytest.mark.filterwarnings("ignore")  # warnings of Dynamo about itself
def test_a_compiled_parent_runs_the_model(model: BiLM) -> None:
    class Top(Parent):
        def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
            tops: Tensor = self.top(self.model(ids, lengths)[-1])
            return tops

    parent = Top(model)
    ids, lengths = torch.tensor([[4, 5, 6]]), torch.tensor([3])
    expected, embedded = parent(ids, lengths), vectors(model)
    compiled = torch.compile(parent, backend="eager")

    found = compiled(ids, lengths)
    torch.testing.assert_close(found, expected)
    weights = list(model.network.recurrent.parameters())
    gradients = torch.autograd.grad(found.square().sum(), weights, allow_unused=True)
    true = torch.autograd.grad(expected.square().sum(), weights, allow_unused=True)
    torch.testing.assert_close(gradients, true)
    np.testing.assert_array_equal(vectors(model), embedded)


def test_weights_that_are_not_finite_raise(model: BiLM) -> None:
    with torch.no_grad():
        next(model.network.recurrent.parameters()).fill_(torch.nan)

    with pytest.raises(VectorError, match="layer 1 of a text: the model computes NaN or infinity"):
        model.embed(TEXTS)
    with pytest.raises(VectorError, match="the log-probability of a text: the model computes NaN"):
        score_texts(model, TEXTS)


def test_values_beyond_float16_raise(spelled: BiLM) -> None:
    with torch.no_grad():
        spelled.network.input.characters.weight.mul_(1e6)
    spelled.half()

    with pytest.raises(VectorError, match="use another model, or float32 or bfloat16"):
        spelled.embed(TEXTS)
