"""token_embedder.pkl and encoder.pkl of ELMoForManyLangs: read exactly, or refused with a message."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.models.elmo_errors import ElmoError
from lightning_modules.models.manylangs.dictionaries import read_characters, read_words
from lightning_modules.models.manylangs.options import read_options
from lightning_modules.models.manylangs.weights import read_weights
from tests.lightning_modules.models.manylangs.small_model import make_model

State = dict[str, Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("manylangs") / "model")


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def read(folder: Path) -> dict[str, torch.Tensor]:
    characters, words = read_characters(str(folder)), read_words(str(folder))
    config = read_options(str(folder)).config(len(characters.rows))
    return read_weights(str(folder), config, characters, words)


def without(name: str) -> Callable[[State], Any]:
    return lambda state: {key: value for key, value in state.items() if key != name}


PROJECTION = "projection.weight"
CHANGES: list[tuple[Callable[[State], Any], str]] = [
    (
        without(PROJECTION),
        r"token_embedder\.pkl: 'projection\.weight' is missing; the file and the",
    ),
    (lambda s: s | {"x\n": s[PROJECTION]}, r"'x\\n' is not in the network of the config"),
    (
        lambda s: s | {PROJECTION: s[PROJECTION].mT},
        r"float32 of shape \(13, 6\), but the config needs",
    ),
    (lambda s: s | {PROJECTION: s[PROJECTION].half()}, r"'projection\.weight' is float16 of shape"),
    (
        lambda s: s | {PROJECTION: s[PROJECTION] / 0},
        "'projection.weight' holds NaN or infinity, so",
    ),
    (
        lambda s: s | {PROJECTION: torch.zeros(()).expand(9999, 99)},
        "is no tensor with values of its",
    ),
    (lambda s: s | {PROJECTION: s[PROJECTION].to_sparse()}, "is no tensor with values of its own"),
    (lambda s: [*s.values()], r"token_embedder\.pkl holds no tensors by name; download or copy"),
    (lambda s: s | {"epoch": 3}, r"token_embedder\.pkl holds no tensors by name"),
    (
        lambda s: s | {"word_emb_layer.embedding.weight": torch.tensor(3.0)},
        r"'word_emb_layer\.embedding\.weight' is float32 of shape \(\), but the config needs",
    ),
    (
        lambda s: s | {"word_emb_layer.embedding.weight": torch.zeros(140, 5)},
        r"has 140 rows of 'word_emb_layer\.embedding\.weight', but word\.dic has 14 entries; both",
    ),
    (
        lambda s: s | {"char_emb_layer.embedding.weight": torch.zeros(9, 4)},
        r"has 9 rows of 'char_emb_layer\.embedding\.weight', but char\.dic has 29 entries",
    ),
]


@pytest.mark.parametrize(("change", "told"), CHANGES)
def test_other_tensors_are_refused(copy: Path, change: Callable[[State], Any], told: str) -> None:
    path = copy / "token_embedder.pkl"
    torch.save(change(torch.load(path, weights_only=True)), path)
    with pytest.raises(ElmoError, match=told):
        read(copy)


class Evil:
    """Raises if it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("code was run",)


@pytest.mark.parametrize("name", ["token_embedder.pkl", "encoder.pkl"])
def test_damaged_files_are_refused(copy: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    state = torch.load(copy / name, weights_only=True)
    code = io.BytesIO()
    torch.save(state | {"x": Evil()}, code)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1000))
    for bad in (b"", b"PK", b"no weights", data[:-9], pickle.dumps(3), code.getvalue()):
        (copy / name).write_bytes(bad)
        with pytest.raises(
            ElmoError, match=rf"{name} is damaged, or no file of weights \(.+\); downl"
        ):
            read(copy)
    (copy / name).write_bytes(packed.getvalue())
    with pytest.raises(ElmoError, match="it has compressed parts"):
        read(copy)
    (copy / name).write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n"
    )
    with pytest.raises(
        ElmoError, match=r"is a pointer of Git LFS, .* fetch them with `git lfs pull`"
    ):
        read(copy)
    (copy / name).unlink()
    with pytest.raises(ElmoError, match=f"{name} is missing; copy it from the folder of the model"):
        read(copy)


def test_the_format_of_either_version_of_torch_is_read(copy: Path) -> None:
    expected = read(copy)
    for name, new in (("token_embedder.pkl", False), ("encoder.pkl", True)):
        state = torch.load(copy / name, weights_only=True)
        torch.save(state, copy / name, _use_new_zipfile_serialization=new)
    found = read(copy)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
