"""The tokenizer of a corpus or training is found by its content."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.lifecycle.inputs import tokenizer_folders, tokenizer_of
from pipeline.lifecycle.stage import StageError
from preprocess.files.manifest import ManifestError, read_manifest

Tiny = Any  # of conftest.py


def content(tiny: Tiny) -> str:
    return read_manifest(str(tiny.root / "prepare")).details["tokenizer"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("beside", [True, False])
def test_the_tokenizer_of_a_corpus_elsewhere_is_found(
    beside: bool, tiny: Tiny, tmp_path: Path
) -> None:
    corpus = tiny.root / "prepare"
    if not beside:  # its config still names the tokenizer
        corpus = Path(shutil.copytree(corpus, tmp_path / "moved"))
    config = tiny.config(tmp_path / "run", "prepare.tokenizer=null", f"train.corpus={corpus}")
    assert tokenizer_of(config, content(tiny), "x") == str(tiny.root / "tokenizer")


def test_a_tokenizer_that_is_not_found_is_told(tiny: Tiny, tmp_path: Path) -> None:
    corpus = f"train.corpus={tiny.root}/prepare"
    config = tiny.config(tmp_path, "prepare.tokenizer=null", corpus)
    with pytest.raises(ManifestError, match="holds no finished 'tokenizer'"):
        tokenizer_of(config, "0" * 64, "x")
    config = tiny.config(tmp_path, corpus)
    with pytest.raises(
        StageError, match=r"this is not the tokenizer that x; set prepare.tokenizer"
    ):
        tokenizer_of(config, "0" * 64, "x")


@pytest.mark.parametrize(
    "text", ["[", "a: 1", "prepare: 1", "prepare: {}\nrun: {output: [1]}", "\t"]
)
def test_a_config_that_cannot_be_read_names_no_tokenizer(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "prepare"
    folder.mkdir()
    (folder / "config.yaml").write_text(text)
    assert [*tokenizer_folders(str(folder))] == [str(tmp_path / "tokenizer")]
