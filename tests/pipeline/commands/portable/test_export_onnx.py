"""`biloom export-onnx`, from the command line."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tokenizers

from biloom import BiLM
from lightning_modules.portable import comparison, recurrence
from pipeline.cli import main
from preprocess.files.manifest import check_files, read_manifest

TEXTS = ["kana loko", "mina  teko kana unknown", ""]


def export(*words: object) -> int:
    return main(["export-onnx", *map(str, words)])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes seconds: the export itself and the comparison."""
    module = "lightning_modules.portable.folder"
    monkeypatch.setattr(f"{module}.onnx_file", lambda _, form: form.encode())
    monkeypatch.setattr(f"{module}.check_onnx_file", lambda *_: 0.0)


@pytest.mark.slow
def test_the_folder_is_all_that_a_program_needs(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(trained / "export", tmp_path / "one", "--stream") == 0
    assert "differs from PyTorch by" in capsys.readouterr().out
    folder = tmp_path / "one"
    manifest = read_manifest(str(folder), "export-onnx")
    assert check_files(str(folder), manifest) == []
    about = json.loads((folder / "interface.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(folder / about["files"]["text"]["file"])
    assert [value.name for value in session.get_inputs()] == ["ids", "lengths"]

    model = BiLM.from_pretrained(trained / "export")
    library = tokenizers.Tokenizer.from_file(str(folder / about["tokenizer"]["file"]))
    for text, embedding in zip(TEXTS, model.embed(TEXTS), strict=True):
        ids = library.encode(text).ids
        feeds = {"ids": np.array([ids or [0]]), "lengths": np.array([len(ids)])}
        (layers,) = session.run(None, feeds)
        assert layers.shape[0] == about["layers"]
        np.testing.assert_allclose(layers[:, 0, : len(ids)], embedding.vectors, rtol=0, atol=2e-6)

    # The same command changes nothing; the same model gives the same bytes elsewhere.
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert export(trained / "export", folder, "--stream") == 0
    assert "already done" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert export(trained / "export", tmp_path / "two", "--stream") == 0
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


@pytest.mark.usefixtures("quick")
def test_the_folder_describes_itself(trained: Path, tmp_path: Path) -> None:
    assert export(trained / "export", tmp_path / "onnx", "--stream") == 0
    about = json.loads((tmp_path / "onnx" / "interface.json").read_text(encoding="utf-8"))
    model = BiLM.from_pretrained(trained / "export")
    assert about["model"] == model.content
    assert about["cleaning"] == {
        "unicode": "NFC", "control_characters": "remove", "whitespace": "collapse",
    }  # fmt: skip
    assert about["tokenizer"]["kind"] == "word"
    assert about["tokenizer"]["whitespace"].split() == []
    assert about["characters"] is None
    assert about["files"]["stream"]["inputs"][3] == {
        "name": "state", "dtype": "float32", "shape": [2, "batch", 12],
    }  # fmt: skip
    readme = (tmp_path / "onnx" / "README.md").read_text(encoding="utf-8")
    for words in ("| input | `ids` | int64 | (batch, time) |", "stream.onnx", "Normalise to NFC"):
        assert words in readme
    assert sorted(path.name for path in (tmp_path / "onnx").iterdir()) == [
        "README.md", "interface.json", "manifest.json", "model.onnx", "stream.onnx", "tokenizer.json",
    ]  # fmt: skip


def test_a_stream_that_cannot_be_run_is_not_written(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = "lightning_modules.portable.folder"
    monkeypatch.setattr(f"{module}.onnx_file", lambda _, form: b"this is no ONNX file")
    check = comparison.check_onnx_file
    monkeypatch.setattr(
        f"{module}.check_onnx_file",
        lambda data, model, texts, form: 0.0 if form == "text" else check(data, model, texts, form),
    )
    assert export(trained / "export", tmp_path / "onnx", "--stream") == 2
    assert "stream.onnx: ONNX Runtime cannot run the exported model (" in error(capsys)
    assert not (tmp_path / "onnx").exists()
    assert export(trained / "export", tmp_path / "onnx") == 0


@pytest.mark.usefixtures("quick")
def test_a_folder_of_something_else_is_left_alone(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "onnx"
    assert export(trained / "export", folder) == 0
    assert export(trained / "export", folder, "--stream") == 2
    assert f"{folder} holds another finished result; name another folder" in error(capsys)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    assert export(trained / "export", tmp_path / "own") == 2
    assert "holds notes.txt, which is not a file of an exported model; name another" in error(
        capsys
    )
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["notes.txt"]

    # What a killed export leaves is written again.
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "model.onnx").write_bytes(b"half")
    assert export(trained / "export", tmp_path / "cut") == 0
    assert (tmp_path / "cut" / "model.onnx").read_bytes() == b"text"


def error(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    return " ".join(printed.err.split())


def test_a_wrong_model_folder_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tmp_path / "missing", tmp_path / "onnx") == 2
    assert str(tmp_path / "missing") in error(capsys)
    assert export(trained / "train", tmp_path / "onnx") == 2
    assert "train" in error(capsys)
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(
    trained: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda one: None if one == name else find(one))
    assert export(trained / "export", tmp_path / "onnx") == 2
    assert (
        f"`biloom export-onnx` needs {name}, which is not installed; pip install 'biloom[onnx]'"
        in error(capsys)
    )


def test_a_layer_that_cannot_be_exported_is_refused(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recurrence, "STEPS", {})
    assert export(trained / "export", tmp_path / "onnx") == 2
    assert "a model with model.recurrent.kind=lstm cannot be exported to ONNX" in error(capsys)
    assert not (tmp_path / "onnx").exists()
