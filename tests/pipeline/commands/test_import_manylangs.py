"""`biloom import-elmo` with a model of ELMoForManyLangs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from biloom import BiLM
from lightning_modules.models.model_folder import ModelError
from pipeline.cli import main
from preprocess.config import SentencePieceConfig
from preprocess.errors import UserError
from preprocess.files.manifest import check_files, read_manifest
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.load import train_tokenizer
from tests.lightning_modules.models.manylangs.small_model import make_model


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def test_an_imported_model_is_finished_and_done_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, model = make_model(tmp_path / "theirs"), tmp_path / "model"
    assert run("import-elmo", theirs, model) == 0
    assert "2,509 parameters, 14 words in the vocabulary" in capsys.readouterr().out
    manifest = read_manifest(str(model), "export")
    assert check_files(str(model), manifest) == []
    assert "Imported from a model of ELMoForManyLangs" in (model / "README.md").read_text()

    assert run("import-elmo", theirs, model) == 0
    assert "already done" in capsys.readouterr().out
    other = make_model(tmp_path / "other", n_layers=1)
    assert run("import-elmo", other, model) == 2
    assert "holds another finished result" in capsys.readouterr().err


def test_what_such_a_model_cannot_do_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("import-elmo", make_model(tmp_path / "theirs"), tmp_path / "model") == 0
    (tmp_path / "text").write_text("the cat\n")

    assert run("score", tmp_path / "text", "--model", tmp_path / "model") == 2
    err = capsys.readouterr().err
    assert "so it cannot score or generate text" in err
    assert "(an imported ELMo model or a static model never has one)" in err
    assert run("export-elmo", tmp_path / "model", tmp_path / "archive") == 2
    err = capsys.readouterr().err
    assert "model.input.kind is word_char_cnn, but an ELMo archive needs char_cnn" in err


def test_sources_that_are_none_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, model = make_model(tmp_path / "theirs"), tmp_path / "model"

    def told(*words: str | Path) -> str:
        assert run("import-elmo", *words) == 2
        assert not model.exists()
        return capsys.readouterr().err

    give = "give options.json and weights.hdf5 of an ELMo archive, or the folder of an ELMoForManyLangs"
    assert f"small.json holds no config.json; {give}" in told(theirs / "small.json", model)
    assert f"{tmp_path} holds no config.json; {give}" in told(tmp_path, model)
    assert "model, and then the folder to write" in told("options.json", "weights.hdf5")
    assert f"3 sources are named; {give}" in told("a", "b", "c", model)
    words = theirs / "word.dic"
    assert "--vocabulary is for an ELMo archive" in told(theirs, model, "--vocabulary", words)
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "model"):
        assert f"{folder}: cannot write here (" in (error := told(theirs, folder))
        assert "); name another output folder" in error
    (theirs / "word.dic").unlink()
    assert "word.dic is missing; copy it from the folder of the model" in told(theirs, model)


def test_published_values_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = make_model(tmp_path / "theirs")
    name = "cnn_50_100_512_4096_sample.json"
    (theirs / "config.json").write_text(json.dumps({"config_path": f"/users/{name}"}))

    assert run("import-elmo", theirs, tmp_path / "model") == 2
    shown = capsys.readouterr()
    told = f"{name} is missing from the folder: its published values are taken"
    assert told in " ".join(shown.out.split())
    assert "'convolutions.2.bias' is missing; the file and the config must be of one" in shown.err


def test_a_folder_that_was_changed_is_refused(
    tmp_path: Path, as_stranger: Callable[[Path], None]
) -> None:
    assert run("import-elmo", make_model(tmp_path / "theirs"), tmp_path / "model") == 0
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    model = BiLM.from_pretrained(tmp_path / "model")
    other = train_tokenizer(SentencePieceConfig(vocabulary=300), ["the cat sat on the mat"] * 9)
    with pytest.raises(UserError, match="has vectors of words, but its tokenizer is sentencepiece"):
        BiLM(model.network, other, CleaningConfig(), "bos_eos")
    points = weights["input.code_points"]
    for bad in (points.flip(0), points + 0x10FFFF, points - 99, torch.zeros_like(points)):
        save_file({**weights, "input.code_points": bad}, path)
        as_stranger(tmp_path / "model")
        with pytest.raises(ModelError, match="does not hold increasing Unicode characters"):
            BiLM.from_pretrained(tmp_path / "model")
