"""The standing records: their settings, their page and their logs."""

import json
from pathlib import Path

import pytest
from records import RECORDS, run

from pipeline.config.load import load_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
LOGS = ROOT / "benchmarks" / "records"


@pytest.mark.parametrize("name", RECORDS)
def test_the_command_of_the_page_has_the_settings_of_the_record(name: str) -> None:
    record = RECORDS[name]
    commands = PAGE.replace("\\\n", " ").splitlines()
    [command] = [line for line in commands if line.endswith(f"run.output=runs/{name}-1")]
    settings = command.split()[3:-1]

    assert command.startswith(f"biloom run {record.text} ")
    shown = load_config([record.text], settings)
    steps = [f"train.steps={record.steps}", f"train.evaluate_steps={record.steps}"]
    assert shown == load_config([record.text], [*steps, *record.settings, "train.seed=1"])


@pytest.mark.parametrize("name", RECORDS)
def test_three_seeds_have_a_log_up_to_the_last_step(name: str) -> None:
    for seed in (1, 2, 3):
        lines = (LOGS / f"{name}-{seed}.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [json.loads(line)["step"] for line in lines if "train_loss" in json.loads(line)]
        assert steps[-1] == RECORDS[name].steps


def test_a_finished_run_with_other_settings_is_refused(tmp_path: Path) -> None:
    record = RECORDS["ptb-500"]
    (tmp_path / "result.json").write_text(json.dumps({"settings": ["train.steps=1"]}))

    with pytest.raises(ValueError, match="has a run with other settings; choose another OUT"):
        run(record, tmp_path, tmp_path, tmp_path, 1, [])


def test_a_finished_run_with_replaced_settings_is_not_repeated(tmp_path: Path) -> None:
    record = RECORDS["ptb-500"]
    steps = ["train.steps=30", f"train.evaluate_steps={record.steps}"]
    done = {"seed": 1, "settings": [*steps, *record.settings, "model.tied=true", "train.seed=1"]}
    (tmp_path / "result.json").write_text(json.dumps(done))

    more = ["train.steps=30", "model.tied=true"]
    assert run(record, tmp_path, tmp_path, tmp_path, 1, more) == done
