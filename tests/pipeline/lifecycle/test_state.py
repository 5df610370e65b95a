"""The state of a stage's folder, in words."""

from pathlib import Path

from pipeline.config.load import load_config
from pipeline.console import Console
from pipeline.lifecycle.plan import Plan, plan_of
from pipeline.lifecycle.running import run_stage
from pipeline.lifecycle.stage import Made, Stage, StageFolder, StageWork
from pipeline.lifecycle.state import state_of


def fake(steps: int) -> Stage:
    return Stage(
        "fake",
        1,
        lambda config: {"steps": steps},
        grows=lambda config, old, new, details: old["steps"] < new["steps"],
    )


def test_the_plan_says_whether_a_result_is_missing_done_to_be_extended_or_refused(
    tmp_path: Path,
) -> None:
    config = load_config([], ["prepare.input=x", f"run.output={tmp_path}"])
    assert plan_of(fake(2), config) == Plan("make", "to be made")
    run_stage(fake(2), lambda: StageWork(lambda *_: Made((), {})), config, Console())
    assert plan_of(fake(2), config) == Plan("keep", "already done")
    assert plan_of(fake(3), config) == Plan("extend", "to be extended")
    refused = plan_of(fake(1), config)
    assert refused == ("refuse", "refused: made with other settings (steps: 2 -> 1)")


def test_an_empty_folder_has_neither_a_result_nor_unfinished_work(tmp_path: Path) -> None:
    config = load_config([], ["prepare.input=x", f"run.output={tmp_path}"])
    place = StageFolder(str(tmp_path / "fake"))
    state = state_of(fake(1), config, place, {"steps": 1})
    assert (state.manifest, state.unfinished, state.done) == (None, None, False)
