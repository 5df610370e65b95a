"""`biloom inspect` shows what a stage folder holds; `biloom check` finds damage."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main

Tiny = Any  # of conftest.py
Capture = pytest.CaptureFixture[str]
STAGES = ("tokenizer", "prepare", "train", "evaluate", "export")


def folder(stage: str, tiny: Tiny, trained: Path) -> Path:
    root: Path = tiny.root if stage in ("tokenizer", "prepare") else trained
    return root / stage


@pytest.mark.parametrize("stage", STAGES)
def test_every_finished_stage_can_be_inspected_and_checked(
    stage: str, tiny: Tiny, trained: Path, capsys: Capture
) -> None:
    path = folder(stage, tiny, trained)
    for named in (path, path / "manifest.json", f"{path}/"):
        assert main(["inspect", str(named)]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"{stage}  {path}\n")
        assert "  content      " in out
        assert "  fingerprint  " in out
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out.endswith(": all match the manifest\n")


def test_of_an_evaluation_the_figures_are_shown(trained: Path, capsys: Capture) -> None:
    assert main(["inspect", str(trained / "evaluate")]) == 0
    out = capsys.readouterr().out
    assert " tokens of the valid split, full vocabulary\n" in out
    assert "    per token, carried state | " in out
    assert "    per token, text by text | " in out
    assert "    1 to 100 | " in out
    assert "not_defined" not in out


def test_of_many_files_the_first_are_shown_and_the_rest_counted(
    tiny: Tiny, tmp_path: Path, capsys: Capture
) -> None:
    arguments = tiny.arguments(tmp_path, "prepare.shard_tokens=20", "prepare.valid_fraction=0")
    assert main(["prepare", *arguments]) == 0
    capsys.readouterr()
    main(["inspect", str(tmp_path / "prepare")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].strip().startswith("... ")
    assert lines[-1].strip().endswith(" more |  |")
    assert sum(".bin | " in line or ".len | " in line for line in lines) == 8


@pytest.fixture
def copied(tiny: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.root / "prepare", tmp_path / "prepare"))


def test_a_changed_byte_is_found_and_the_file_named(copied: Path, capsys: Capture) -> None:
    shard = copied / "train-000000-000.bin"
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    assert main(["check", str(copied)]) == 1
    out = capsys.readouterr().out
    assert "  train-000000-000.bin: hash is " in out
    assert out.endswith(" files are damaged\n")


def test_a_missing_and_a_shortened_file_are_found(copied: Path, capsys: Capture) -> None:
    (copied / "counts.npy").unlink()
    shard = copied / "train-000000-000.len"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert main(["check", str(copied)]) == 1
    out = capsys.readouterr().out
    assert "  counts.npy: missing\n" in out
    assert "  train-000000-000.len: size is " in out
    assert "  2 of " in out


@pytest.mark.parametrize("command", ["inspect", "check"])
def test_a_folder_without_a_manifest_is_reported(
    command: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main([command, str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"biloom: {tmp_path} holds no finished stage (no manifest.json); check the path\n"
    )
