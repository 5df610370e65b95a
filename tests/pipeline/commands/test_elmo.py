"""ELMo archives to model folders and back, from the command line."""

import gzip
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.models.elmo_layout import from_archive, layout, to_archive
from lightning_modules.models.elmo_options import read_options, write_options
from pipeline.cli import main
from preprocess.files.manifest import (
    check_files,
    read_manifest,
)
from preprocess.tokenizers.vocabulary import Vocabulary
from preprocess.tokenizers.words import WordTokenizer

OPTIONS: dict[str, Any] = {
    "lstm": {
        "dim": 8,
        "projection_dim": 6,
        "n_layers": 2,
        "cell_clip": 3,
        "proj_clip": 3,
        "use_skip_connections": True,
    },
    "char_cnn": {
        "activation": "relu",
        "embedding": {"dim": 4},
        "filters": [[1, 3], [3, 5]],
        "max_characters_per_token": 20,
        "n_characters": 262,
        "n_highway": 1,
    },
}


Stranger = Callable[[Path], None]  # of conftest.py


def make(folder: Path, **changes: Any) -> Path:
    options = json.loads(json.dumps(OPTIONS))
    for name, value in changes.items():
        options["char_cnn" if name in options["char_cnn"] else "lstm"][name] = value
    folder.mkdir()
    (folder / "options.json").write_text(json.dumps(options))
    draw = np.random.default_rng(3)
    with h5py.File(folder / "weights.hdf5", "w") as file:
        for name, shape in layout(read_options(f"{folder}/options.json")).items():
            file[name] = draw.normal(size=shape).astype(np.float32)
    return folder


def weights(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def imported(archive: Path, folder: Path, *more: str | Path) -> int:
    return run("import-elmo", archive / "options.json", archive / "weights.hdf5", folder, *more)


SHAPES: list[dict[str, Any]] = [
    {},
    {"projection_dim": 8},
    {"filters": [[1, 2], [2, 4]]},
    {"n_highway": 0, "n_layers": 1},
    {"n_highway": 2, "n_layers": 3, "activation": "tanh", "cell_clip": None, "proj_clip": None},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_archive_comes_back_bit_by_bit(tmp_path: Path, shape: dict[str, Any]) -> None:
    archive = make(tmp_path / "archive", **shape)

    assert imported(archive, tmp_path / "model") == 0
    assert run("export-elmo", tmp_path / "model", tmp_path / "again") == 0

    before, after = weights(archive / "weights.hdf5"), weights(tmp_path / "again" / "weights.hdf5")
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.tobytes() == after[name].tobytes(), name
    assert imported(tmp_path / "again", tmp_path / "model-2") == 0
    one, two = (BiLM.from_pretrained(tmp_path / name) for name in ("model", "model-2"))
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, two.network.state_dict()[name])


def test_a_recorded_archive_comes_back_bit_by_bit(tmp_path: Path) -> None:
    data = os.environ.get("BILOOM_TEST_DATA")
    if not data:
        pytest.skip("BILOOM_TEST_DATA is not set")
    archive = Path(data) / "elmo" / "bilm-tf" / "model"
    model = tmp_path / "model"

    assert run("import-elmo", archive / "options.json", archive / "lm_weights.hdf5", model) == 0
    assert run("export-elmo", model, tmp_path / "again") == 0

    before, after = weights(archive / "lm_weights.hdf5"), weights(tmp_path / "again/weights.hdf5")
    assert before.keys() == after.keys()
    assert all(value.tobytes() == after[name].tobytes() for name, value in before.items())


def test_an_imported_folder_is_finished_and_done_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = make(tmp_path / "archive")
    assert imported(archive, tmp_path / "model") == 0
    manifest = read_manifest(str(tmp_path / "model"), "export")

    assert check_files(str(tmp_path / "model"), manifest) == []
    assert manifest.details["parameters"] > 1000
    assert imported(archive, tmp_path / "model") == 0
    assert "already done" in capsys.readouterr().out
    other = make(tmp_path / "other", n_layers=1)
    assert imported(other, tmp_path / "model") == 2
    assert "holds another finished result" in capsys.readouterr().err


def test_a_vocabulary_gives_words_ids_and_goes_back(tmp_path: Path) -> None:
    archive = make(tmp_path / "archive")
    (archive / "vocab.txt").write_text("<S>\n</S>\n<UNK>\nthe\nnaïve\n", encoding="utf-8")

    assert imported(archive, tmp_path / "model", "--vocabulary", archive / "vocab.txt") == 0
    model = BiLM.from_pretrained(tmp_path / "model")
    assert [model.tokenizer.spelling(n) for n in range(3, 5)] == ["the", "naïve"]
    assert run("export-elmo", tmp_path / "model", tmp_path / "again") == 0
    assert (tmp_path / "again" / "vocab.txt").read_bytes() == (archive / "vocab.txt").read_bytes()


def test_odd_vocabularies_give_their_words_and_go_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cases of ELMo vocabularies: a mark, odd white space, repeated words, a compressed file."""
    archive = make(tmp_path / "archive")
    lines = ["<S>", "</S>", "<UNK>", "foo", "foo\u00a0", "a\u2028b", "\x0bc\x85", "foo", "d\r"]
    text = "\ufeff" + "".join(f"{line}\r\n" for line in lines)
    (archive / "v.gz").write_bytes(gzip.compress(text.encode()))

    assert imported(archive, tmp_path / "model", "--vocabulary", archive / "v.gz") == 0
    assert (
        "v.gz: repeated words are taken once, 1 in all: 'foo' (line 8)" in capsys.readouterr().out
    )
    words = [*lines[3:7], "d\r"]
    model = BiLM.from_pretrained(tmp_path / "model")
    assert [model.tokenizer.spelling(n) for n in range(3, 8)] == words
    assert run("export-elmo", tmp_path / "model", tmp_path / "back") == 0
    exported = (tmp_path / "back" / "vocab.txt").read_bytes().decode()
    assert exported == "".join(f"{word}\n" for word in lines[:7]) + "d\r\r\n"


def test_a_large_vocabulary_with_a_repeated_word_takes_no_longer(tmp_path: Path) -> None:
    archive = make(tmp_path / "archive")
    words = "".join(f"w{n}\n" for n in range(100_000))
    (archive / "v").write_text(f"{words}w99998\n")

    start = time.monotonic()
    assert imported(archive, tmp_path / "model", "--vocabulary", archive / "v") == 0
    # A second and a half for each 20,000 words, if each is compared with all others.
    assert time.monotonic() - start < 20


def test_a_word_that_is_spelt_like_a_control_token_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], as_stranger: Stranger
) -> None:
    archive = make(tmp_path / "archive")
    (archive / "v").write_text("the\na\n")
    assert imported(archive, tmp_path / "model", "--vocabulary", archive / "v") == 0
    WordTokenizer(Vocabulary.of_words(["the", "<S>"])).save(str(tmp_path / "model"))
    as_stranger(tmp_path / "model")

    assert run("export-elmo", tmp_path / "model", tmp_path / "back") == 0
    assert "vocab.txt: 1 words are left out, because readers" in capsys.readouterr().out
    assert (tmp_path / "back" / "vocab.txt").read_text() == "<S>\n</S>\n<UNK>\nthe\n"


def test_a_text_is_neither_cleaned_nor_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(make(tmp_path / "archive"), tmp_path / "model") == 0
    model = BiLM.from_pretrained(tmp_path / "model")

    [found] = model.embed([["e\u0301", "a\tb", "\x07"]])
    assert [token.spelling for token in found.tokens] == ["e\u0301", "a\tb", "\x07"]
    assert not [name for name in model.network.state_dict() if name.startswith("head.")]


CHAR_CNN = {**OPTIONS["char_cnn"]}
WRONG: list[tuple[str, str]] = [
    ("no json", r"options\.json is not the options\.json of an ELMo archive \("),
    ("{}", r"options\.json: 'lstm' is missing; give the options\.json of an ELMo"),
    ("[]", r"is not the options\.json of an ELMo archive \("),
    (
        json.dumps({"lstm": OPTIONS["lstm"]}),
        "'char_cnn' is missing; only models with a character CNN",
    ),
    (
        json.dumps({**OPTIONS, "char_cnn": {**CHAR_CNN, "n_characters": 300}}),
        r"n_characters is 300, but must be 262 \(or 261",
    ),
    (
        json.dumps({**OPTIONS, "char_cnn": {**CHAR_CNN, "activation": "gelu"}}),
        "activation: Input should be 'relu' or 'tanh'",
    ),
    (
        json.dumps({**OPTIONS, "char_cnn": {**CHAR_CNN, "filters": [[99, 3]]}}),
        "must have a width of 1 to max_characters",
    ),
]


@pytest.mark.parametrize(("text", "told"), WRONG)
def test_options_that_are_none_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    archive = make(tmp_path / "archive")
    (archive / "options.json").write_text(text)

    assert imported(archive, tmp_path / "model") == 2
    err = capsys.readouterr().err
    assert re.search(told, err), err
    assert not (tmp_path / "model").exists()


def test_weights_that_do_not_belong_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = make(tmp_path / "archive")
    name = "RNN_0/RNN/MultiRNNCell/Cell0/LSTMCell/W_0"

    def told() -> str:
        assert imported(archive, tmp_path / "model") == 2
        return capsys.readouterr().err

    with h5py.File(archive / "weights.hdf5", "a") as file:
        kept = file[name][...]
        del file[name]
    assert f"'{name}' is missing; give both files of the same archive" in told()
    with h5py.File(archive / "weights.hdf5", "a") as file:
        file[name] = kept[:3]
    assert "is float32 of shape (3, 32), but options.json needs float32 of" in told()
    with h5py.File(archive / "weights.hdf5", "a") as file:
        del file[name]
        file[name] = kept
        file["softmax/W"] = kept
    assert "softmax/W is not in the network of options.json; give both files" in told()
    (archive / "weights.hdf5").write_bytes(b"no hdf5")
    assert "weights.hdf5 is not an HDF5 file" in told()
    (archive / "weights.hdf5").unlink()
    assert "weights.hdf5 is missing" in told()
    (archive / "weights.hdf5").mkdir()
    assert "weights.hdf5: cannot be read (Is a directory); name a file that exists" in told()
    (archive / "options.json").unlink()
    assert "options.json is missing" in told()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"t\x00h\x00e\x00\n\x00", "contains NUL characters"),
        (b"\x1f\x8b\x08\x00 no gzip", "this compressed file is damaged or truncated"),
        (b"the\na\n\xff\xfe", "is not UTF-8 text (line 3: invalid start byte); convert it"),
        (None, "vocab.txt is missing"),
    ],
)
def test_a_vocabulary_that_is_none_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes | None, told: str
) -> None:
    archive = make(tmp_path / "archive")
    if data is not None:
        (archive / "vocab.txt").write_bytes(data)

    assert imported(archive, tmp_path / "model", "--vocabulary", archive / "vocab.txt") == 2
    assert told in capsys.readouterr().err


def test_an_archive_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(make(tmp_path / "archive"), tmp_path / "model") == 0
    assert run("export-elmo", tmp_path / "model", tmp_path / "archive") == 2
    assert "holds an archive already" in capsys.readouterr().err


def test_files_of_others_are_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = make(tmp_path / "archive")
    (archive / "vocabulary.txt").write_text("the\n")
    assert imported(archive, archive, "--vocabulary", archive / "vocabulary.txt") == 2
    assert (
        "archive holds options.json, which is not a file of a model; name"
        in capsys.readouterr().err
    )
    assert (archive / "vocabulary.txt").read_text() == "the\n"

    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("of a killed import")
    assert imported(archive, tmp_path / "begun") == 0
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "options.json").write_text("mine")
    assert run("export-elmo", tmp_path / "begun", tmp_path / "kept") == 2
    assert "kept holds another options.json; name another folder" in capsys.readouterr().err
    assert run("export-elmo", tmp_path / "begun", tmp_path / "again") == 0
    (tmp_path / "again" / "weights.hdf5").unlink()
    assert run("export-elmo", tmp_path / "begun", tmp_path / "again") == 0


CNN = {"kind": "char_cnn", "dim": 4, "filters": [[1, 3], [3, 5]], "highway": 1}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, r"model\.input\.kind is embedding, but an ELMo archive needs char_cnn"),
    ({"input": CNN, "recurrent": {"kind": "gru"}}, r"model\.recurrent\.kind is gru"),
    ({"input": CNN, "directions": "forward"}, r"model\.directions is forward"),
    (
        {"input": CNN, "recurrent": {"kind": "lstm", "projection": None}},
        "projection_clip is set without a projection",
    ),
    ({"input": CNN, "recurrent": {"kind": "lstm", "forget_bias": 0.5}}, "forget_bias is 0.5"),
]


@pytest.mark.parametrize(("sections", "told"), REFUSED)
def test_what_an_archive_cannot_hold_is_refused(sections: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        write_options(ModelConfig.model_validate(sections))


def test_of_our_own_models_one_is_taken_from_the_forget_gates_bias() -> None:
    recurrent = {"kind": "lstm", "hidden": 8, "projection": 6, "forget_bias": 1.0}
    config = ModelConfig.model_validate({"input": CNN, "recurrent": recurrent})
    draw = np.random.default_rng(1)
    theirs = {n: draw.normal(size=s).astype(np.float32) for n, s in layout(config).items()}
    ours = from_archive(theirs, config)
    held = {name: value.copy() for name, value in ours.items()}
    for layer in range(2):
        held[f"recurrent.layers.{layer}.bias"][:, 8:16] += 1
    without = ModelConfig.model_validate(
        {"input": CNN, "recurrent": {**recurrent, "forget_bias": 0.0}}
    )

    for name, value in to_archive(held, without).items():
        np.testing.assert_allclose(value, theirs[name], atol=1e-6)


def test_a_trained_model_of_another_boundary_is_exported_with_a_warning(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], as_stranger: Stranger
) -> None:
    assert run("export-elmo", trained / "export", tmp_path / "archive") == 2
    assert "model.input.kind is embedding" in capsys.readouterr().err
    assert imported(make(tmp_path / "made"), tmp_path / "model") == 0
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "boundary": "eos"}))
    as_stranger(tmp_path / "model")
    assert run("export-elmo", tmp_path / "model", tmp_path / "archive") == 0
    assert "trained with boundary eos" in capsys.readouterr().out


def test_without_h5py_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make(tmp_path / "archive")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert imported(archive, tmp_path / "model") == 2
    assert "pip install 'biloom[hdf5]'" in capsys.readouterr().err
