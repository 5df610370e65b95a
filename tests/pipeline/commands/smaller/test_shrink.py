"""`biloom shrink`, from the command line."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from biloom import BiLM
from lightning_modules.models.model_folder import load_network
from pipeline.cli import main
from pipeline.console import count
from preprocess.files.manifest import check_files, read_manifest, write_manifest
from preprocess.files.storage import list_names
from preprocess.shards.format import Corpus
from tests.lightning_modules.models.manylangs.small_model import make_model

Tiny = Any  # of conftest.py
TEXTS = ["kana lori mele", "維典 kana"]


def shrink(model: Path, folder: Path, *options: str) -> int:
    return main(["shrink", str(model), str(folder), *options])


def test_a_smaller_model_is_a_model_folder(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = trained / "export"
    options = ("--layers", "1", "--no-head", "--weights", "float16")
    assert shrink(source, tmp_path / "small", *options) == 0
    printed = capsys.readouterr().out
    manifest = read_manifest(f"{tmp_path}/small", "export")
    small, full = BiLM.from_pretrained(tmp_path / "small"), BiLM.from_pretrained(source)

    assert check_files(f"{tmp_path}/small", manifest) == []
    assert len(small.embed(TEXTS)[0].vectors) == 2
    parameters = [
        sum(parameter.numel() for parameter in one.network.parameters()) for one in (full, small)
    ]
    assert manifest.details["smaller"]["parameters"] == parameters
    assert f"Parameters: {parameters[1]:,}, before {parameters[0]:,}." in printed
    assert f"{tmp_path}/small: " in printed
    card = (tmp_path / "small" / "README.md").read_text()
    assert card.startswith((source / "README.md").read_text())
    assert "the lowest 1 of 2" in card
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.suffix in (".md", ".json"):
            assert str(tmp_path) not in file.read_text()

    assert shrink(source, tmp_path / "small", *options) == 0
    printed = capsys.readouterr()
    assert "already done" in printed.out
    assert printed.err == ""
    assert shrink(source, tmp_path / "small", *options, "--corpus", str(trained / "prepare")) == 0
    assert (
        "--corpus is not read, because the model is made; name another folder to have the share of "
        "unknown tokens" in capsys.readouterr().out
    )
    assert shrink(source, tmp_path / "small", "--no-head") == 2
    assert "holds another finished result; name another folder" in capsys.readouterr().err
    # A killed command is repeated.
    first = {path.name: path.read_bytes() for path in (tmp_path / "small").iterdir()}
    (tmp_path / "small" / "manifest.json").unlink()
    assert shrink(source, tmp_path / "small", *options) == 0
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "small").iterdir()}


def test_vectors_are_equal_and_a_smaller_model_can_be_made_smaller_again(
    trained: Path, tmp_path: Path
) -> None:
    assert shrink(trained / "export", tmp_path / "one", "--no-head", "--vocabulary", "60") == 0
    assert shrink(tmp_path / "one", tmp_path / "two", "--layers", "1") == 0
    one, two = (BiLM.from_pretrained(tmp_path / name) for name in ("one", "two"))

    for full, small in zip(one.embed(TEXTS), two.embed(TEXTS), strict=True):
        np.testing.assert_array_equal(small.vectors, full.vectors[:2])
    assert (tmp_path / "two" / "README.md").read_text().count("## Made smaller") == 2


def test_a_model_without_a_card_gets_one_and_bytes_are_compared_without_it(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, small = tmp_path / "plain", tmp_path / "small"
    shutil.copytree(trained / "export", source)
    manifest = read_manifest(str(source))
    files = tuple(file for file in manifest.files if file.name != "README.md")
    write_manifest(str(source), replace(manifest, files=files))
    (source / "README.md").unlink()

    assert shrink(source, small, "--no-head") == 0
    (small / "manifest.json").unlink()  # as if the command was killed
    assert shrink(source, small, "--no-head") == 0
    assert (small / "README.md").read_text().startswith("\n## Made smaller")

    capsys.readouterr()
    assert shrink(small, tmp_path / "half", "--weights", "float16") == 0
    sizes = [
        sum(file.bytes for file in read_manifest(str(one)).files if file.name != "README.md")
        for one in (tmp_path / "half", small)
    ]
    after, before = (f"{count(size)}B" for size in sizes)
    assert f"/half: {after}, before {before}\n" in capsys.readouterr().out


def test_stored_word_vectors_are_kept(tiny: Tiny, tmp_path: Path) -> None:
    spelling = (
        "model.input.kind=char_cnn", "model.input.filters=[[1,4],[2,4]]", "model.input.dim=4",
        "model.input.max_characters=8", "train.steps=2", "export.type_vectors=true",
    )  # fmt: skip
    tiny.run("train", tmp_path, *spelling)
    tiny.run("export", tmp_path, *spelling)
    options = ("--vocabulary", "30", "--no-head")
    assert shrink(tmp_path / "export", tmp_path / "small", *options) == 0
    full, small = (load_network(f"{tmp_path}/{name}").type_vectors for name in ("export", "small"))

    assert full is not None
    assert small is not None
    assert torch.equal(small, full[:30])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing to make smaller; give --layers, --input-rank, --vocabulary, --weights or --no-head"),
        (("--layers", "1"), "--layers: the output layer reads the top layer, which is dropped; add --no-head"),
        (("--layers", "0", "--no-head"), "--layers: 0 layers are to be kept, but the model has 2 recurrent "
         "layers; choose 1"),
        (("--input-rank", "-1"), "--input-rank: -1 is not a lower rank than that of the input matrix (4); "
         "choose 1 to 3"),
        (("--vocabulary", "1000", "--no-head"), "--vocabulary: 1,000 ids are to be kept, but the model has 103"),
        (("--vocabulary", "50"), "--vocabulary: an adaptive softmax without some of its 103 ids is not "
         "normalised over the others; add --no-head"),
        (("--layers", "many"), "invalid int value: 'many'"),
        (("--weights", "int4"), "invalid choice: 'int4'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    try:
        code = shrink(trained / "export", tmp_path / "small", *options)
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]

    assert code == 2
    assert message in capsys.readouterr().err
    assert list_names(str(tmp_path / "small")) == []


def test_an_option_that_changes_nothing_or_makes_the_weights_larger_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    assert shrink(trained / "export", small, "--no-head", "--weights", "float16") == 0

    def refusal(*options: str) -> str:
        assert shrink(small, tmp_path / "out", *options) == 2
        assert not (tmp_path / "out").exists()
        return " ".join(capsys.readouterr().err.split())

    assert "--no-head: the model has no output layer; leave --no-head out" in refusal("--no-head")
    stored = (
        "--weights: the weights of the model are stored as float16 already; leave --weights out"
    )
    assert stored in refusal("--weights", "float16", "--layers", "1")
    size = (small / "model.safetensors").stat().st_size
    # The scales of int8 take more room than its numbers if matrices are this small.
    for kind in ("float32", "int8"):
        larger = refusal("--weights", kind)
        assert re.search(
            rf"the weights would take [\d,]+ bytes, more than the {size:,} bytes of the model; leave "
            r"--weights out$",
            larger,
        )
    rank = refusal("--input-rank", "3", "--weights", "float32")
    assert "leave --weights out, or choose a lower --input-rank, or leave it out" in rank
    # In a model that is smaller, wider numbers are no mistake.
    options = ("--weights", "float32", "--vocabulary", "10", "--layers", "1")
    assert shrink(small, tmp_path / "few", *options) == 0


def test_a_rank_that_makes_the_weights_larger_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--no-head", "--vocabulary", "5")
    assert shrink(trained / "export", tmp_path / "few", *few) == 0
    assert shrink(tmp_path / "few", tmp_path / "rank", "--input-rank", "3") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(r"more than the [\d,]+ bytes of the model; choose a lower --input-rank", error)
    assert not (tmp_path / "rank").exists()


def test_a_folder_without_a_model_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shrink(tmp_path, tmp_path / "small", "--no-head") == 2
    assert "holds no finished" in capsys.readouterr().err
    assert shrink(trained / "train", tmp_path / "small", "--no-head") == 2
    assert "'train'" in capsys.readouterr().err
    shutil.copytree(trained / "export", tmp_path / "damaged")
    weights = tmp_path / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    assert shrink(tmp_path / "damaged", tmp_path / "small", "--no-head") == 2
    assert "model.safetensors" in capsys.readouterr().err


def test_the_input_vectors_in_a_tied_output_layer_are_kept(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tied = ("model.input.kind=adaptive", "model.tied=true", "train.steps=2")
    tiny.run("train", tmp_path, *tied)
    tiny.run("export", tmp_path, *tied)

    assert shrink(tmp_path / "export", tmp_path / "small", "--no-head") == 2
    assert "--no-head: the output layer has the input vectors" in capsys.readouterr().err


def test_the_corpus_tells_the_share_of_unknown_tokens(
    tiny: Tiny, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--no-head", "--vocabulary", "40")
    corpus = tiny.root / "prepare"
    assert shrink(trained / "export", tmp_path / "one", *options, "--corpus", str(corpus)) == 0
    printed = capsys.readouterr().out
    counts = Corpus.open(str(corpus)).counts()
    assert f"words are dropped: {100 * counts[40:].sum() / counts.sum():.3g} %." in printed

    assert shrink(trained / "export", tmp_path / "two", *options) == 0
    contents = {read_manifest(f"{tmp_path}/{name}").content for name in ("one", "two")}
    assert len(contents) == 1

    assert (
        shrink(tmp_path / "two", tmp_path / "three", "--layers", "1", "--corpus", str(corpus)) == 2
    )
    assert "was prepared with another tokenizer than that of the model" in capsys.readouterr().err


def test_an_imported_model_is_made_smaller(tmp_path: Path) -> None:
    make_model(tmp_path / "published")
    assert main(["import-elmo", f"{tmp_path}/published", f"{tmp_path}/full"]) == 0
    full = BiLM.from_pretrained(tmp_path / "full")
    options = ("--layers", "1", "--input-rank", "2", "--vocabulary", "4", "--weights", "float16")
    assert shrink(tmp_path / "full", tmp_path / "small", *options) == 0
    assert shrink(tmp_path / "full", tmp_path / "lower", "--layers", "1") == 0
    small, lower = (BiLM.from_pretrained(tmp_path / name) for name in ("small", "lower"))

    assert small.tokenizer.vocabulary == 4
    assert len(small.embed([["a"]])[0].vectors) == 2
    [one], [other] = full.embed([["a", "b"]]), lower.embed([["a", "b"]])
    np.testing.assert_array_equal(other.vectors, one.vectors[:2])
    card = (tmp_path / "lower" / "README.md").read_text()
    assert "Imported from a model of ELMoForManyLangs" in card
    assert "## Made smaller" in card
