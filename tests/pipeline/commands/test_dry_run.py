"""A dry run tells the plan, before, between and after the stages, and touches nothing."""

from pathlib import Path
from typing import Any

import pytest

from lightning_modules.sizes import parameter_count
from pipeline.cli import main

Tiny = Any  # of conftest.py
Capture = pytest.CaptureFixture[str]
STAGES = ("tokenizer", "prepare", "train", "evaluate", "export", "embed")


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below ``root`` with its time and bytes."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in root.rglob("*")
    }


def states(printed: str) -> dict[str, str]:
    rows = printed.rpartition("stages: stage | folder | state\n")[2].splitlines()
    return {row.split(" | ")[0].strip(): row.split(" | ")[2] for row in rows}


@pytest.fixture
def arguments(tiny: Tiny, tmp_path: Path) -> list[str]:
    """One run of all stages, on the tiny corpus."""
    joined = ("prepare.tokenizer", "train.corpus", "evaluate.corpus")
    text: list[str] = tiny.arguments(tmp_path / "out", *(f"{key}=null" for key in joined))
    return text


def test_it_tells_the_plan_and_touches_nothing_at_any_time(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    def plan() -> dict[str, str]:
        before = tree(tmp_path)
        assert main(["run", *arguments, "--dry-run"]) == 0
        assert tree(tmp_path) == before
        out = capsys.readouterr().out
        assert "  inputs: source | files | size | units\n    corpus | 1 | " in out
        return states(out)

    after = "to be made, after the stage before it"
    assert plan() == dict.fromkeys(STAGES, after) | {"tokenizer": "to be made"}
    main(["tokenizer", *arguments])
    capsys.readouterr()
    assert plan() == dict.fromkeys(STAGES, after) | {
        "tokenizer": "already done",
        "prepare": "to be made",
    }
    main(["prepare", *arguments])
    capsys.readouterr()
    arguments.append("prepare.deduplicate=false")
    assert plan()["prepare"] == (
        "refused: made with other settings (prepare.deduplicate: true -> false)"
    )
    assert plan()["tokenizer"] == "already done"


def test_all_is_already_done_after_a_run(tiny: Tiny, trained: Path, capsys: Capture) -> None:
    main(["run", *tiny.arguments(trained), "--dry-run"])
    told = states(capsys.readouterr().out)
    done = dict.fromkeys(("train", "evaluate", "export"), "already done")
    # The tokenizer and the corpus stand in another folder, so no run makes them.
    assert told == {**done, "embed": "to be made"}


def parameters(arguments: list[str], capsys: Capture) -> str:
    main(["train", *arguments, "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    return next(line.strip() for line in lines if line.startswith("  parameters: "))


def test_the_parameters_are_those_of_the_network_that_is_trained(
    tiny: Tiny, arguments: list[str], capsys: Capture
) -> None:
    config = tiny.config(tiny.root)
    vocabulary = int(tiny.run("tokenizer", tiny.root)[0].details["vocabulary"])
    number = parameter_count(config.model, vocabulary, (20, 50))
    known = f"prepare.tokenizer={tiny.root / 'tokenizer'}"
    assert parameters([*arguments, known], capsys) == (
        f"parameters: {number:,}, for a vocabulary of {vocabulary}"
    )
    assert parameters([*arguments, known, "model.head.cutoffs=auto"], capsys).startswith(
        "parameters: at most "
    )
    assert parameters(arguments, capsys) == (
        "parameters: as many as the words of the corpus ask for"
    )
    assert parameters([*arguments, "tokenizer.kind=char"], capsys) == (
        "parameters: as many as the characters of the corpus ask for"
    )
    assert parameters([*arguments, "tokenizer.kind=sentencepiece"], capsys).endswith(
        " for a vocabulary of 8,000"
    )


def test_a_stage_is_planned_from_the_inputs_that_it_reads(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    gone = "prepare.input=/nowhere/*.txt"
    assert main(["train", *arguments, gone, "--dry-run"]) == 0
    assert main(["prepare", *arguments, gone, "--dry-run"]) == 2
    text = tmp_path / "new.txt"
    text.write_text("ein Satz\n" * 3)
    capsys.readouterr()
    assert main(["embed", *arguments, gone, f"embed.input={text}", "--dry-run"]) == 0
    assert "inputs of embed: source | files | size | units\n    corpus | 1 | 27B | 1\n" in (
        capsys.readouterr().out
    )
