"""The tokenizer stage: learned of the train split only, and again the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from preprocess.manifest import read_manifest
from preprocess.tokenizer import load_tokenizer

Capture = pytest.CaptureFixture[str]
LINES = [f"слово{n % 37} 語{n % 11} w{n % 23} ሰ{n}" for n in range(300)]


def learn(output: Path, *overrides: str) -> dict[str, Any]:
    text = output / "text.txt"
    text.parent.mkdir(exist_ok=True)
    text.write_text("\n".join(LINES), encoding="utf-8")
    arguments = [f"prepare.input={text}", f"run.output={output}", *overrides]
    assert main(["tokenizer", *arguments]) == 0
    return read_manifest(str(output / "tokenizer"), "tokenizer").details


def files(output: Path) -> dict[str, bytes]:
    own = ("manifest.json", "stats.json", "config.yaml")
    folder = (output / "tokenizer").iterdir()
    return {path.name: path.read_bytes() for path in folder if path.name not in own}


@pytest.mark.parametrize("kind", ["word", "sentencepiece"])
def test_the_same_text_gives_the_same_bytes_wherever_it_lies(kind: str, tmp_path: Path) -> None:
    options = [f"tokenizer.kind={kind}"]
    if kind == "sentencepiece":
        options.append("tokenizer.vocabulary=320")
    for name in ("one", "two"):
        learn(tmp_path / name, *options)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    marks = [read_manifest(str(tmp_path / n / "tokenizer")).fingerprint for n in ("one", "two")]
    assert marks[0] == marks[1]


def test_held_out_documents_are_not_learned_of(tmp_path: Path) -> None:
    all_of_it = learn(tmp_path / "all", "tokenizer.kind=word", "prepare.valid_fraction=0")
    half = learn(tmp_path / "half", "tokenizer.kind=word", "prepare.valid_fraction=0.5")
    assert all_of_it["sample"]["documents"] == 300
    assert 90 < half["sample"]["documents"] < 210
    assert half["vocabulary"] < all_of_it["vocabulary"]
    assert half["vocabulary"] == load_tokenizer(str(tmp_path / "half" / "tokenizer")).vocabulary


def test_a_source_that_is_given_as_held_out_is_not_learned_of(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        (tmp_path / f"{name}.txt").write_text(f"{name}word\n" * 9)
    sources = [
        {"name": name, "path": str(tmp_path / f"{name}.txt"), "split": name}
        for name in ("train", "valid")
    ]
    text = json.dumps(sources)
    arguments = [f"prepare.input={text}", f"run.output={tmp_path}", "tokenizer.kind=word"]
    assert main(["tokenizer", *arguments]) == 0
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    spelled = [tokenizer.spelling(number) for number in range(tokenizer.vocabulary)]
    assert "trainword" in spelled
    assert "validword" not in spelled


def test_a_large_text_is_sampled(tmp_path: Path) -> None:
    options = ("tokenizer.vocabulary=320", "prepare.valid_fraction=0")
    details = learn(tmp_path, *options, "tokenizer.sample_bytes=3000")
    assert 1500 < details["sample"]["bytes"] < 4500


@pytest.mark.parametrize("raw", [b"", b"\n \n"])
@pytest.mark.parametrize("kind", ["word", "sentencepiece"])
def test_text_without_a_document_is_told(
    raw: bytes, kind: str, tmp_path: Path, capsys: Capture
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(raw)
    arguments = [f"prepare.input={text}", f"run.output={tmp_path}", f"tokenizer.kind={kind}"]
    assert main(["tokenizer", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("biloom: ")
    assert err.count("\n") == 1
