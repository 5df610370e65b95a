"""`biloom report` and `biloom compare` work on run folders, wherever those lie now."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.cli import main
from pipeline.commands.run_folder import RunFolderError, check_run
from pipeline.console import Console
from pipeline.lifecycle.order import STAGE_ORDER
from pipeline.reports.run_report import config_of_run

Capture = pytest.CaptureFixture[str]
FINISHED = Path(__file__).parents[2] / "fixtures" / "version-0.1" / "finished"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run that has moved since."""
    copy = tmp_path / "[moved] 1.10"
    shutil.copytree(FINISHED, copy)
    return copy


def test_a_report_is_made_again_where_the_folder_is_now(folder: Path, capsys: Capture) -> None:
    (folder / "report.html").unlink()
    assert main(["report", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"report  {folder}/report.html\n")
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_the_config_is_that_of_the_last_finished_stage(folder: Path) -> None:
    for stage in STAGE_ORDER[3:]:
        file = folder / stage / "config.yaml"
        file.write_text(file.read_text().replace("steps: 30", f"steps: {len(stage)}"))
    assert config_of_run(str(folder)).train.steps == len("embed")
    assert config_of_run(str(folder)).run.output == str(folder)
    (folder / "embed" / "manifest.json").unlink()
    assert config_of_run(str(folder)).train.steps == len("export")


def test_a_run_without_a_finished_stage_is_reported(folder: Path, capsys: Capture) -> None:
    for manifest in folder.rglob("manifest.json"):
        manifest.unlink()
    assert main(["report", str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"biloom: {folder} holds no finished stage; name another run folder, or see `biloom status "
        f"{folder}`\n"
    )


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str | None]]:
    """What `pipeline.reports.comparison` was given."""
    calls: list[tuple[list[str], str | None]] = []

    def compare(runs: Sequence[str], console: Console, page: str | None) -> None:
        calls.append((list(runs), page))

    module = ModuleType("pipeline.reports.comparison")
    vars(module)["compare"] = compare
    monkeypatch.setitem(sys.modules, "pipeline.reports.comparison", module)
    return calls


def test_runs_are_compared_on_the_terminal_and_as_a_page(
    folder: Path, compared: list[tuple[list[str], str | None]]
) -> None:
    assert main(["compare", str(folder), str(FINISHED)]) == 0
    assert main(["compare", "--page", "a.html", str(FINISHED), str(folder)]) == 0
    assert main(["compare", str(FINISHED), "--page", "a.html", str(folder)]) == 0
    assert compared == [
        ([str(folder), str(FINISHED)], None),
        ([str(FINISHED), str(folder)], "a.html"),
        ([str(FINISHED), str(folder)], "a.html"),
    ]


def test_a_run_is_compared_with_another(folder: Path, capsys: Capture) -> None:
    assert main(["compare", str(folder)]) == 2
    assert capsys.readouterr().err == "biloom: `biloom compare` needs two or more run folders\n"


def test_a_folder_that_is_no_run_is_reported(
    folder: Path, tmp_path: Path, compared: list[tuple[list[str], str | None]], capsys: Capture
) -> None:
    stage = folder / "train"
    for command in (["report"], ["status"], ["compare", str(folder)]):
        assert main([*command, str(stage)]) == 2
        assert capsys.readouterr().err == (
            f"biloom: {stage} is the folder of one stage (train); name the run folder above it, or "
            "look at the stage with `biloom inspect`\n"
        )
        assert main([*command, str(tmp_path)]) == 2
        assert capsys.readouterr().err == (
            f"biloom: {tmp_path} holds no stage of a run (tokenizer, prepare, train, evaluate, "
            "export, embed); name the folder that was given as run.output\n"
        )
    assert compared == []


def test_a_relative_path_is_a_run_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert config_of_run(folder.name).run.output == str(folder)
    with pytest.raises(RunFolderError):
        check_run("nothing-here")
