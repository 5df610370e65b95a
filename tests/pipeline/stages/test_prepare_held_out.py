"""The number of held-out documents is limited, but not in the middle of work without a limit."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.stages import prepare
from preprocess.corpus import held_out as held_out_shares
from preprocess.files.manifest import read_manifest

Tiny = Any  # of conftest.py
LIMIT = "prepare.held_out_documents=50"


def held_out(tiny: Tiny, output: Path, *options: str) -> tuple[int, str]:
    """Return the number of documents of the valid split, and the content of the corpus."""
    arguments = tiny.arguments(output, "prepare.valid_fraction=0.5", *options)
    assert main(["prepare", *arguments]) == 0
    manifest = read_manifest(str(output / "prepare"))
    return manifest.details["splits"]["valid"]["documents"], manifest.content


def test_a_limit_of_documents_lowers_the_share_of_a_split(tiny: Tiny, tmp_path: Path) -> None:
    every, _ = held_out(tiny, tmp_path / "every")
    few, _ = held_out(tiny, tmp_path / "few", LIMIT)
    assert 0 < few < every / 2


def test_work_that_a_former_version_began_keeps_its_shares(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = held_out(tiny, tmp_path / "every")
    monkeypatch.setattr(held_out_shares, "is_begun", lambda work: True)
    assert held_out(tiny, tmp_path / "resumed", LIMIT) == every


def test_a_limit_holds_when_the_work_is_resumed(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = held_out(tiny, tmp_path / "few", LIMIT)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(prepare, "_collect", killed)
        arguments = tiny.arguments(tmp_path / "two", "prepare.valid_fraction=0.5", LIMIT)
        assert main(["prepare", *arguments]) != 0
    assert held_out(tiny, tmp_path / "two", LIMIT) == few
