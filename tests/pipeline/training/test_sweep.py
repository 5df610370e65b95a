"""Sweeps of wandb: its agent starts trainings by `key=value`, each with a folder of its own."""

import importlib.util
import json
import os
import queue
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from lightning_modules.training.metrics_file import metric_names
from pipeline.config.load import ConfigError, load_config
from pipeline.config.schema import Config
from pipeline.exit_codes import ExitCode
from pipeline.training import wandb_child

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is not installed"
)
ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "wandb-sweep.yaml"
STAND_IN = f"""\
#!{sys.executable}
import json, os, sys
told = dict(arguments=sys.argv[1:], process=os.getpid(), run=os.environ["WANDB_RUN_ID"])
json.dump(told, open("told.json", "w"))
"""


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """wandb's agent for the example, and a stand-in for the command that it starts."""
    from wandb.wandb_agent import Agent

    (tmp_path / "biloom").write_text(STAND_IN)
    (tmp_path / "biloom").chmod(0o755)
    (tmp_path / "mine.yaml").write_text("prepare: {input: a.txt}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("WANDB_DIR", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # the agent sets them
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.chdir(tmp_path)
    made = Agent(None, queue.Queue())
    made._sweep_command = example()["command"]
    return made


def example() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    return loaded


def start(agent: Any, run: str, values: dict[str, Any]) -> dict[str, Any]:
    """Let the agent start a run with these values of parameters, and return what the command got."""
    parameters = {name: {"value": value} for name, value in values.items()}
    agent._command_run({"run_id": run, "program": "biloom", "args": parameters})
    started = agent._run_processes[run]
    assert started.wait() == 0
    told: dict[str, Any] = json.loads(Path("told.json").read_text())
    assert told["process"] == started._popen.pid, "a signal of the agent must reach biloom"
    return told


def config_of(told: dict[str, Any]) -> Config:
    stage, file, *overrides = told["arguments"]
    assert (stage, file) == ("train", "mine.yaml")
    return load_config([file], overrides)


def first_values(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return values of a sweep's parameters, nested as wandb's server nests them."""
    return {
        name: first_values(one["parameters"])
        if "parameters" in one
        else (one["values"][-1] if "values" in one else one["min"])
        for name, one in parameters.items()
    }


def test_each_run_of_the_example_has_its_values_and_a_folder_of_its_own(agent: Any) -> None:
    values = first_values(example()["parameters"])
    first, second = (config_of(start(agent, run, values)) for run in ("aa11", "bb22"))
    assert (first.run.output, second.run.output) == ("runs/sweep/aa11", "runs/sweep/bb22")
    assert first.train.corpus == "runs/mine/prepare"
    assert first.train.learning_rate == 0.0003
    assert first.train.optimizer.kind == "adamw"
    assert first.train.clip_norm is None
    assert first.model.recurrent.dropout == 0.3


FLAT = {
    "train.learning_rate": 1e-05,
    "train.rows": 16.0,  # a quantised distribution
    "train.reset_state": True,
    "train.clip_norm": None,
    "train.init_from": None,
    "train.optimizer.kind": "sgd",
    "train.optimizer.average_after": None,
    "model.head.cutoffs": [20, 50],
    "model.input": {"kind": "char_cnn", "filters": [[1, 4], [2, 4]]},
    "tracking.name": "a name with 'spaces' and $HOME",
    "tracking.project": "1e5",
    "embed.words": False,
    "report.words": ["it's", "a b"],
}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *above, last = name.split(".")
        place = tree
        for key in above:
            place = place.setdefault(key, {})
        place[last] = value
    return tree


@pytest.mark.parametrize("values", [FLAT, nested(FLAT)], ids=["flat", "nested"])
def test_values_of_all_types_arrive(agent: Any, values: dict[str, Any]) -> None:
    config = config_of(start(agent, "aa11", values)).model_dump(mode="json")
    for name, value in FLAT.items():
        place: Any = config
        for key in name.split("."):
            place = place[key]
        if isinstance(value, dict):
            place = {key: place[key] for key in value}
        assert place == value, name


def newest_step(folder: Path) -> int:
    return max((int(path.stem[-9:]) for path in folder.rglob("step-*.ckpt")), default=0)


@pytest.mark.slow
def test_a_run_that_the_agent_stops_early_is_saved_and_resumed(
    agent: Any, biloom: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "biloom").unlink()
    monkeypatch.setenv("PATH", f"{biloom.script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    text = (tiny.root / "tiny.yaml").read_text().replace('wandb: "off"', "wandb: auto")
    (tmp_path / "mine.yaml").write_text(text.replace(f'corpus: "{tiny.root}/prepare"', ""))
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "prepare").symlink_to(tiny.root / "prepare")
    folder = tmp_path / "runs" / "sweep" / "aa11"
    parameters = {"train": {"value": {"steps": 1_000_000, "clip_norm": None}}}
    command = {"run_id": "aa11", "program": "biloom", "args": parameters}
    before = 0
    for kind in ("run", "resume"):
        assert "exception" not in agent._process_command({"type": kind, **command})
        run = agent._run_processes["aa11"]
        try:
            for _ in range(2400):
                if newest_step(folder) > before or run.poll() is not None:
                    break
                time.sleep(0.05)
            agent._process_command({"type": "stop", "run_id": "aa11"})
            assert run.wait(60) == ExitCode.STOPPED
        finally:
            run.kill()
        assert newest_step(folder) > before, "it goes on from its checkpoint"
        before = newest_step(folder)
    assert json.loads((folder / "train" / "wandb.json").read_text()) == {"id": "aa11"}
    assert len([*tmp_path.glob("wandb/offline-run-*-aa11")]) == 2


def test_a_file_of_nested_values_is_a_config(agent: Any) -> None:
    values = nested({**FLAT, "tracking.name": "a \\ 'quoted' \" name \n 维"})
    agent._sweep_command = ["biloom", "train", "mine.yaml", "${args_json_file}"]
    _, *files = start(agent, "aa11", values)["arguments"]
    config = load_config(files, [])
    assert config.tracking.name == values["tracking"]["name"]
    assert config.train.optimizer.kind == "sgd"
    assert config.train.clip_norm is None


def test_none_is_null_only_where_null_is_allowed() -> None:
    source = "prepare.input=a"
    assert load_config([], [source, "report.words=[None, 'None']"]).report.words == ("None",) * 2
    assert load_config([], [source, "tracking.name='None'"]).tracking.name == "None"
    assert load_config([], [source, "run.output=None"]).run.output == "None"
    with pytest.raises(ConfigError, match=r"train\.rows: must be .*, not 'None'"):
        load_config([], [source, "train.rows=None"])


def test_the_page_shows_the_example() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert f"```text\n{EXAMPLE.read_text(encoding='utf-8')}```" in page


# Metrics


def rows(output: Path) -> list[dict[str, Any]]:
    lines = (output / "train" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_known_names_of_metrics_are_those_that_are_logged(
    tiny: Any, trained: Path, tmp_path: Path
) -> None:
    logged = {name for row in rows(trained) for name in row}
    known = set(metric_names(2, has_held_out=True))
    # The split is so small that each evaluation reads all of it.
    of_all = {name for name in known if name.startswith("whole_")}
    assert logged - {"step"} == known - of_all
    assert example()["metric"]["name"] in logged
    tiny.run("train", tmp_path, "model.directions=forward", "train.steps=1")
    logged = {name for row in rows(tmp_path) for name, value in row.items() if value is not None}
    known = set(metric_names(1, has_held_out=True))
    assert known - logged - of_all <= {"valid_bits_per_byte"}, "not defined for unknown words"
    assert logged - {"step"} <= known


def test_without_a_held_out_split_its_metrics_are_not_known() -> None:
    assert not any(name.startswith("valid") for name in metric_names(2, has_held_out=False))


@pytest.mark.parametrize(
    ("metric", "notes"),
    [
        ({"name": "loss_forward"}, []),
        ({"name": "_runtime"}, []),
        (None, []),
        (
            {"name": "val_loss"},
            [
                "the metric of the sweep is val_loss, which is never logged, so the sweep cannot "
                "compare its runs; name one of these in its file: loss_forward, mfu"
            ],
        ),
    ],
)
def test_a_metric_that_is_never_logged_is_told(
    monkeypatch: pytest.MonkeyPatch, metric: Any, notes: list[str]
) -> None:
    import wandb

    asked = []

    def sweep(path: str) -> Any:
        asked.append(path)
        return SimpleNamespace(config={"metric": metric} if metric else {})

    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(sweep=sweep))
    run = SimpleNamespace(entity="me", project="mine", sweep_id="s1")
    told: list[Any] = []
    wandb_child.check_sweep(run, ["loss_forward", "mfu"], lambda **words: told.append(words))
    assert asked == ["me/mine/s1"]
    assert told == [{"note": note} for note in notes]


def test_a_sweep_that_cannot_be_asked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse() -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(wandb, "Api", refuse)
    told: list[Any] = []
    run = SimpleNamespace(entity="me", project="mine", sweep_id="s1")
    wandb_child.check_sweep(run, [], lambda **words: told.append(words))
    assert told == [{"note": "the metric of the sweep was not checked (ConnectionError: no route)"}]
