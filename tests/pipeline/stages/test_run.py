"""The stages in order, each only when asked for, and the report after all."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.dry_run import dry_run
from pipeline.console import Console
from pipeline.lifecycle.order import STAGE_ORDER
from pipeline.lifecycle.registry import STAGES
from pipeline.lifecycle.stage import StageError
from pipeline.reports import run_report as report_module
from pipeline.stages import run as module
from pipeline.stages.run import run

Tiny = Any  # of conftest.py


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Names of what ran, and whether it might overwrite."""
    names: list[tuple[str, bool]] = []

    def run_stage(stage: Any, work: Any, config: Any, console: Any, overwrite: bool) -> None:
        assert work is module.LOAD_WORK[stage.name]
        names.append((stage.name, overwrite))

    def report(config: Any, console: Any) -> None:
        names.append(("report", False))

    monkeypatch.setattr(module, "run_stage", run_stage)
    monkeypatch.setattr(report_module, "report", report)
    return names


def test_every_stage_has_its_place_in_the_order_and_its_work() -> None:
    assert tuple(STAGES) == STAGE_ORDER
    assert set(module.LOAD_WORK) == set(STAGE_ORDER)
    grows_in_place = [name for name, one in STAGES.items() if one.may_rise]
    assert [name for name, load in module.LOAD_WORK.items() if load().reopen] == grows_in_place


def test_run_is_every_stage_in_order_and_the_report(
    ran: list[tuple[str, bool]], tiny: Tiny, tmp_path: Path
) -> None:
    own = ("prepare.tokenizer=null", "train.corpus=null")
    run(tiny.config(tmp_path, *own), "run", Console(), overwrite=True)
    names = ["tokenizer", "prepare", "train", "evaluate", "export", "embed"]
    assert ran == [*((name, True) for name in names), ("report", False)]


@pytest.mark.parametrize(
    ("named", "stage", "left_out"),
    [
        ("prepare.tokenizer", "tokenizer", ["tokenizer"]),
        ("train.corpus", "prepare", ["tokenizer", "prepare"]),
    ],
)
def test_run_leaves_out_the_stages_whose_result_is_named_in_another_folder(
    named: str,
    stage: str,
    left_out: list[str],
    ran: list[tuple[str, bool]],
    tiny: Tiny,
    tmp_path: Path,
) -> None:
    other = {"prepare.tokenizer": "null", "train.corpus": "null", named: tiny.root / stage}
    config = tiny.config(tmp_path, *(f"{key}={value}" for key, value in other.items()))
    run(config, "run", Console())
    assert [name for name, _ in ran] == [*(n for n in STAGES if n not in left_out), "report"]


@pytest.mark.parametrize("name", STAGES)
def test_one_stage_is_run_alone(
    name: str, ran: list[tuple[str, bool]], tiny: Tiny, tmp_path: Path
) -> None:
    run(tiny.config(tmp_path), name, Console())
    assert ran == [(name, False)]


def test_what_a_late_stage_needs_is_missed_before_the_first_begins(
    ran: list[tuple[str, bool]], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "lightning" in name else find(name)
    )
    with pytest.raises(StageError) as caught:
        run(tiny.config(tmp_path), "run", Console())
    assert str(caught.value) == (
        "`biloom run` needs pytorch_lightning, which is not installed; pip install 'biloom[train]'"
    )
    assert ran == []


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize("dry", [False, True])
def test_what_a_late_stage_cannot_do_is_reported_before_the_first_begins(
    command: str, dry: bool, ran: list[tuple[str, bool]], tiny: Tiny
) -> None:
    on_a_store = ("run.output=memory://told", "runner.options.mode=in_memory")
    config = tiny.config(Path("unused"), *on_a_store, "tracking.tensorboard=true")
    begin = dry_run if dry else run
    with pytest.raises(StageError, match=r"^tracking.tensorboard can write only local files, but"):
        begin(config, command, Console())
    assert ran == []


def test_a_stage_without_loggers_does_not_check_them(
    ran: list[tuple[str, bool]], tiny: Tiny
) -> None:
    on_a_store = ("run.output=memory://told", "runner.options.mode=in_memory")
    run(tiny.config(Path("unused"), *on_a_store, "tracking.tensorboard=true"), "prepare", Console())
    assert ran == [("prepare", False)]


@pytest.mark.slow
def test_run_on_a_corpus_of_another_run_finds_its_tokenizer(
    tiny: Tiny, tmp_path: Path, biloom: Any
) -> None:
    settings = ("prepare.tokenizer=null", "evaluate.corpus=null", "train.steps=10")
    direct = "runner.options.mode=in_memory"
    done = biloom.run("run", *tiny.arguments(tmp_path, *settings, direct, "embed.sample=20"))
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} >= {"train", "export", "embed", "report.html"}
    assert not (tmp_path / "tokenizer").exists()
