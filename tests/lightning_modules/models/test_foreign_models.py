"""Model folders of an untrusted source: each is read, or refused with a message, in bounded memory."""

import copy
import json
import math
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.models.model_folder import ModelError, load_network, save_model
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.vectors.type_vectors import vectors_of_vocabulary
from preprocess.config import WordConfig
from preprocess.errors import UserError
from preprocess.files.fingerprint import fingerprint
from preprocess.files.manifest import FileRecord, Manifest, content_hash, hash_file, write_manifest
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.load import Tokenizer, train_tokenizer

SECTIONS = {
    "input": {"kind": "char_cnn", "dim": 3, "max_characters": 9, "filters": [[1, 2], [2, 3]]},
    "recurrent": {"kind": "lstm", "hidden": 5, "projection": 4},
}
FILES = ("model.safetensors", "config.json")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(WordConfig(), ["kana lori mele nani"])


@pytest.fixture(scope="module")
def files(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of a model folder."""
    torch.manual_seed(1)
    config = ModelConfig.model_validate(SECTIONS)
    network = BiLMNetwork(config, tokenizer.vocabulary, (4,))
    assert not isinstance(network.input.vectors, torch.Tensor)
    weights = {
        **network.state_dict(),
        "type_vectors": vectors_of_vocabulary(network.input, tokenizer),  # type: ignore[arg-type]
    }
    saved = {
        "model": config.model_dump(mode="json"),
        "vocabulary": tokenizer.vocabulary,
        "cutoffs": [4],
        "boundary": "bos_eos",
        "cleaning": CleaningConfig().model_dump(mode="json"),
        "tokenizer": "",
        "head": True,
        "weights": "float32",
        "type_vectors": True,
        "warm_up": None,
    }
    folder = tmp_path_factory.mktemp("model")
    names = save_model(str(folder), weights, saved, tokenizer)
    return {name: (folder / name).read_bytes() for name in names}


Write = Callable[..., str]


@pytest.fixture
def write(files: dict[str, bytes], tmp_path: Path) -> Write:
    """Return a function that writes the folder with other files and a manifest that fits them."""

    def write(**changed: bytes) -> str:
        contents = files | {FILES[name == "config"]: data for name, data in changed.items()}
        for name, data in contents.items():
            (tmp_path / name).write_bytes(data)
        records = [FileRecord(name, *hash_file(str(tmp_path / name))) for name in contents]
        manifest = Manifest(
            stage="export",
            stage_version=1,
            biloom="0",
            fingerprint=fingerprint({}),
            content=content_hash(records),
            asked={},
            files=tuple(records),
            details={},
        )
        write_manifest(str(tmp_path), manifest)
        return str(tmp_path)

    return write


def changed(files: dict[str, bytes], **keys: Any) -> bytes:
    """Return config.json with other values; a key "model.recurrent.layers" is written with "__"."""
    saved = json.loads(files["config.json"])
    for key, value in keys.items():
        inner = saved
        *path, last = key.split("__")
        for name in path:
            inner = inner[name]
        inner[last] = value
    return json.dumps(saved).encode()


def test_the_folder_is_read(write: Write, files: dict[str, bytes]) -> None:
    [found] = BiLM.from_pretrained(write()).embed(["kana zuzu"])
    assert found.vectors.shape == (3, 2, 8)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model__recurrent__layers": 256}, r"describes [\d,]+ weights, but the file has"),
    ({"model__recurrent__layers": 10**30}, "layers': Input should be less than"),
    ({"model__recurrent__hidden": 10**6}, r"describes [\d,]+ weights, but the file has"),
    ({"model__input__highway": 256}, r"describes [\d,]+ weights, but the file has"),
    ({"model__input__max_characters": 10**9}, "max_characters': Input should be less than"),
    ({"model__head": {"kind": "softmax"}, "vocabulary": 10**15}, r"describes [\d,]+ weights, but"),
    ({"model__recurrent__layers": -1}, "layers': Input should be greater than or equal to 1"),
    ({"model__recurrent__cell_clip": math.nan}, "NaN is not a JSON number"),
    ({"model__recurrent__cell_clip": math.inf}, "Infinity is not a JSON number"),
    ({"model__recurrent__kind": "rnn"}, "recurrent': Input tag 'rnn'"),
    ({"model__depth": 2}, "unknown key 'model.depth'"),
    ({"architectures": ["BiLM"]}, "unknown key 'architectures'"),
    ({"vocabulary": "7"}, "vocabulary': Input should be a valid integer"),
    ({"vocabulary": True}, "vocabulary': Input should be a valid integer"),
    ({"vocabulary": 10**5000}, "Exceeds the limit"),
    ({"cutoffs": [4, 4]}, r"config.json does not describe a network: .*\[4, 4\] must increase"),
    ({"cutoffs": [-1]}, r"must increase"),
    ({"cutoffs": None}, "cutoffs': Input should be a valid tuple"),
    ({"boundary": "none"}, "boundary': Input should be 'eos' or 'bos_eos'"),
    ({"cleaning": {"unicode": "NFQ"}}, "cleaning.unicode': Input should be"),
    ({"head": False}, r"the network of config.json has no tensor 'head"),
    ({"warm_up": 3}, "warm_up': Input should be a valid string"),
    ({"model__input": {"kind": "embedding"}}, r"no tensor 'input.embedding.weight'"),
    ({"model__recurrent__projection": None}, "config.json has no tensor 'input.projection.bias'"),
    ({"model__tied": True, "model__input": {"kind": "adaptive"}, "head": False}, "head is false"),
    ({"model__recurrent__projection": 10**400}, "projection': Input should be less than"),
]


@pytest.mark.parametrize(("keys", "message"), WRONG)
def test_a_wrong_config_is_refused(
    write: Write, files: dict[str, bytes], keys: dict[str, Any], message: str
) -> None:
    if keys.get("vocabulary") == 10**5000:
        config = changed(files).replace(b'"vocabulary": 7', b'"vocabulary": 1' + b"0" * 5000)
    else:
        config = changed(files, **keys)
    with pytest.raises(ModelError, match=rf"is damaged \(.*{message}|is damaged \({message}"):
        load_network(write(config=config))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[]", "it holds a list, not an object"),
        (b"null", "it holds a NoneType, not an object"),
        (b"\xff\xfe\x00", "damaged"),
        (b"", "Expecting value"),
        (b'{"model": 1e999}', "the number 1e999 is too large"),
        (b'{"weights": "int3"}', "weights are stored as 'int3', which needs a newer biloom"),
    ],
)
def test_a_config_that_is_no_object_of_json_is_refused(
    write: Write, config: bytes, message: str
) -> None:
    with pytest.raises(ModelError, match=rf"config.json is .*{message}"):
        load_network(write(config=config))


def _other(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], None]:
    def alter(weights: dict[str, torch.Tensor]) -> None:
        weights[name] = change(weights[name]).contiguous()

    return alter


def _nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[-1] = torch.nan
    return tensor


LSTM_BIAS = "recurrent.layers.0.bias"
TENSORS: list[tuple[Callable[[Any], Any], str]] = [
    (_other(LSTM_BIAS, _nan), f"'{LSTM_BIAS}' holds NaN or infinity"),
    (_other(LSTM_BIAS, lambda w: w / 0), f"'{LSTM_BIAS}' holds NaN or infinity"),
    (_other("type_vectors", _nan), "'type_vectors' holds NaN or infinity"),
    (_other("type_vectors", lambda w: w[1:]), r"type_vectors have shape \(6, 4\)"),
    (_other("type_vectors", lambda w: w.long()), "type int64, not"),
    (_other(LSTM_BIAS, lambda w: w.double()), "and type float64, but config.json needs"),
    (_other(LSTM_BIAS, lambda w: w.bfloat16()), "and type bfloat16, but config.json needs"),
    (_other(LSTM_BIAS, lambda w: w.to(torch.int8)), "and type int8, but config.json needs"),
    (_other(LSTM_BIAS, lambda w: w.T), rf"'{LSTM_BIAS}' has shape \(20, 2\)"),
    (_other("head.ranks", lambda w: w * 0), "'head.ranks': ranks must hold each of 0 to 6 once"),
    (_other("head.ranks", lambda w: w + 9**9), "'head.ranks': ranks must hold each of"),
    (_other("head.ranks", lambda w: w.float()), "type float32, but config.json needs"),
    (lambda weights: weights.pop(LSTM_BIAS), f"no tensor '{LSTM_BIAS}'"),
    (
        lambda weights: weights.update({f"{LSTM_BIAS}:scale": torch.ones(9999, 1, 1)}),
        f"'{LSTM_BIAS}:scale' does not fit",
    ),
    (lambda weights: weights.update(extra=torch.ones(2)), "has no tensor 'extra'"),
]


@pytest.mark.parametrize(("alter", "message"), TENSORS)
def test_wrong_tensors_are_refused(
    write: Write, files: dict[str, bytes], alter: Callable[[Any], Any], message: str
) -> None:
    weights = load(files["model.safetensors"])
    alter(weights)
    with pytest.raises(ModelError, match=f"safetensors is damaged .*{message}"):
        load_network(write(weights=save(weights)))


def test_a_huge_finite_weight_is_no_damage(write: Write, files: dict[str, bytes]) -> None:
    weights = load(files["model.safetensors"])
    weights["head.head.weight"].fill_(3e38)

    assert load_network(write(weights=save(weights))).network.head


def test_a_model_with_nan_is_not_saved(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'w' holds NaN or infinity, so the model computes no"):
        save_model(str(tmp_path), {"w": torch.tensor([torch.nan])}, {}, tokenizer)


def test_another_tokenizer_is_refused(write: Write, files: dict[str, bytes]) -> None:
    weights = load(files["model.safetensors"])
    weights["type_vectors"] = weights["type_vectors"][:6]
    config = changed(files, vocabulary=6, model__output_vocabulary=None, head=False, cutoffs=[])
    kept = {name: w for name, w in weights.items() if not name.startswith("head.")}
    with pytest.raises(ModelError, match=r"the tokenizer has 7 ids, but config.json says 6"):
        BiLM.from_pretrained(write(config=config, weights=save(kept)))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 12), st.sampled_from([2**31, 2**63, 10**25, -(2**65)]),
    st.floats(), st.sampled_from(["", "softmax", "gru", "char_cnn", "adaptive", "embedding", "\ud800", "10"]),
    st.lists(st.integers(-2, 9), max_size=3), st.builds(dict), st.builds(lambda: [[1, 2], [2, 3]]),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside a JSON value."""
    pairs = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        pairs = enumerate(value)  # type: ignore[assignment]
    found = [path] if path else []
    for key, inner in pairs:
        found += places(inner, (*path, key))
    return found


def mutated(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with some parts replaced, removed or added."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        if not (paths := places(value)):
            break
        *path, last = draw(st.sampled_from(paths))
        inner = value
        for key in path:
            inner = inner[key]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                inner[last] = draw(VALUES)
            case "remove":
                del inner[last]
            case _ if isinstance(inner, dict):
                inner[draw(st.sampled_from(["x", "kind", "layers"]))] = draw(VALUES)
            case _:
                inner.append(draw(VALUES))
    return value


def is_read_or_refused(folder: str) -> None:
    with suppress(UserError):
        found = BiLM.from_pretrained(folder).embed(["kana zuzu", ["mele"]])
        assert all(np.isfinite(one.vectors).all() for one in found)


FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(data=st.data())
def test_any_config_is_read_or_refused(
    write: Write, files: dict[str, bytes], data: st.DataObject
) -> None:
    saved = data.draw(st.composite(mutated)(json.loads(files["config.json"])))
    is_read_or_refused(write(config=json.dumps(saved).encode()))


@FUZZ
@given(data=st.data())
def test_any_header_of_weights_is_read_or_refused(
    write: Write, files: dict[str, bytes], data: st.DataObject
) -> None:
    whole = files["model.safetensors"]
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    header = json.dumps(data.draw(st.composite(mutated)(header))).encode()
    size = data.draw(st.one_of(st.just(len(header)), st.integers(0, 2**64 - 1), st.integers(0, 99)))
    is_read_or_refused(write(weights=struct.pack("<Q", size) + header + whole[8 + length :]))


@FUZZ
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.integers(0, 10**6))
def test_any_byte_of_weights_may_be_another(
    write: Write, files: dict[str, bytes], place: int, byte: int, cut: int
) -> None:
    whole = bytearray(files["model.safetensors"])
    whole[place % len(whole)] = byte
    is_read_or_refused(write(weights=bytes(whole)))
    is_read_or_refused(write(weights=bytes(whole[: cut % len(whole)])))
