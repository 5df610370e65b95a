"""The export stage: a model folder that stands on its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from preprocess.errors import UserError
from preprocess.manifest import check_files, read_manifest
from preprocess.tokenizer import load_tokenizer

Tiny = Any  # of conftest.py


def test_a_model_folder_holds_weights_config_tokenizer_and_card(tiny: Tiny, trained: Path) -> None:
    folder = trained / "export"
    manifest = read_manifest(str(folder), "export")

    tokenizer = {"tokenizer.json", "vocabulary.txt", "vocabulary.index"}
    names = {"model.safetensors", "config.json", "README.md", *tokenizer}
    assert {file.name for file in manifest.files} == names
    assert check_files(str(folder), manifest) == []
    saved = json.loads((folder / "config.json").read_text())
    details = read_manifest(str(trained / "train")).details
    kept = ("model", "vocabulary", "cutoffs", "boundary", "cleaning", "tokenizer")
    assert saved == {key: details[key] for key in kept}
    texts = ["kana lori 維典"]
    ours, theirs = (load_tokenizer(str(one)) for one in (folder, tiny.root / "tokenizer"))
    assert [x.tolist() for x in ours.encode(texts)] == [x.tolist() for x in theirs.encode(texts)]


def test_the_card_carries_the_numbers_that_were_measured(trained: Path) -> None:
    card = (trained / "export" / "README.md").read_text()
    figures = read_manifest(str(trained / "evaluate")).details

    assert f"| perplexity a token | {figures['forward_perplexity']:,.2f} |" in card
    assert "| corpus | not given | " in card


def test_the_content_is_that_of_the_model_and_not_of_the_card(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    manifest, _ = tiny.run("export", tmp_path, f"export.checkpoint={trained}/train")
    card = (tmp_path / "export" / "README.md").read_text()

    assert manifest.content == read_manifest(str(trained / "export")).content
    assert "Not measured: no held-out text was evaluated before the export." in card


def test_the_tokenizer_of_another_training_is_refused(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    other = (f"prepare.tokenizer={tmp_path}/tokenizer", "tokenizer.min_count=20")
    tiny.run("tokenizer", tmp_path, *other)

    with pytest.raises(
        UserError, match=r"this is not the tokenizer that .* was trained with; name"
    ):
        tiny.run("export", tmp_path, *other, f"export.checkpoint={trained}/train")


def test_a_corpus_that_is_gone_does_not_hinder_an_export(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    tiny.run(
        "export", tmp_path, f"export.checkpoint={trained}/train", f"train.corpus={tmp_path}/gone"
    )

    assert "## Corpus" not in (tmp_path / "export" / "README.md").read_text()


def test_a_result_of_an_older_checkpoint_does_not_reach_the_card(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "evaluate", tmp_path / "evaluate")
    tiny.run("train", tmp_path, "train.steps=2")
    tiny.run("export", tmp_path)

    assert "Not measured" in (tmp_path / "export" / "README.md").read_text()


def test_another_corpus_than_that_of_the_training_does_not_reach_the_card(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    other = (f"train.corpus={tmp_path}/prepare", "prepare.valid_fraction=0.3")
    tiny.run("prepare", tmp_path, *other)
    tiny.run("export", tmp_path, f"export.checkpoint={trained}/train", *other)

    assert "## Corpus" not in (tmp_path / "export" / "README.md").read_text()
