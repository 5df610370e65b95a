"""The metrics file is in Prometheus's text format, with the figures of the stage."""

import math
import re
from dataclasses import asdict
from typing import Any

import pytest

from pipeline.progress import Progress
from pipeline.prometheus import FIGURES, exposition

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"({NAME})\{{({LABEL}(?:,{LABEL})*)\}} (\S+)")
NUMBER = re.compile(r"[+-]?(\d+(\.\d+)?(e[+-]?\d+)?|Inf)|NaN")


def parse(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Parse a page strictly: HELP, TYPE and then the samples of each metric, each sample once."""
    assert text.endswith("\n")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    lines = iter(text.splitlines())
    name = ""
    for line in lines:
        if line.startswith("#"):
            helped = re.fullmatch(rf"# HELP ({NAME}) (\S.*)", line)
            assert helped, line
            name = helped[1]
            assert name not in found, "the samples of a metric are in one group"
            assert next(lines) == f"# TYPE {name} gauge"
            found[name] = {}
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        assert sample[1] == name
        assert NUMBER.fullmatch(sample[3]), line
        pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', sample[2])
        assert len({key for key, _ in pairs}) == len(pairs)
        labels = tuple((key, unescaped(value)) for key, value in pairs)
        assert labels not in found[name]
        found[name][labels] = float(sample[3])
    assert all(found.values())
    return found


def unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], value)


def page(exit_code: int | None = None, **fields: Any) -> dict[str, Any]:
    progress = asdict(Progress("prepare", "s3://b/run/prepare", began=100.0, moved=150.5))
    return parse(exposition({**progress, **fields}, "0.1.0", 160.0, exit_code))


def value(found: dict[str, Any], name: str) -> float:
    [number] = found[f"biloom_{name}"].values()
    return float(number)


def test_a_running_stage_has_its_times_and_labels() -> None:
    found = page()
    for name, samples in found.items():
        [labels] = samples
        assert dict(labels).items() >= {"stage": "prepare", "folder": "s3://b/run/prepare"}.items()
        assert name.startswith("biloom_")
    assert dict(next(iter(found["biloom_info"])))["version"] == "0.1.0"
    assert value(found, "running") == 1
    assert value(found, "began_timestamp_seconds") == 100
    assert value(found, "progress_timestamp_seconds") == 150.5
    assert value(found, "progress_age_seconds") == 9.5
    assert value(found, "written_timestamp_seconds") == 160
    assert not found.keys() & {"biloom_exit_code", "biloom_work_done", "biloom_tokens"}


def test_a_command_that_has_ended_has_its_exit_code() -> None:
    found = page(exit_code=3)
    assert (value(found, "running"), value(found, "exit_code")) == (0, 3)


def test_the_figures_of_a_job_are_there_with_the_reasons_of_drops() -> None:
    dropped = {"too_short": 5, 'odd "\\\nreason': 1}
    figures = {"units": 4, "units_read": 3, "units_finished": 2, "tokens": 20, "dropped": dropped}
    found = page(work="prepare", done=10, planned=40.0, rate=2.5, figures=figures)
    assert value(found, "work_done") == 10
    assert value(found, "work_planned") == 40
    assert value(found, "work_rate") == 2.5
    assert value(found, "units_planned") == 4
    assert value(found, "units_finished") == 2
    assert value(found, "tokens") == 20
    drops = found["biloom_dropped_documents"]
    assert {dict(labels)["reason"]: number for labels, number in drops.items()} == dropped


@pytest.mark.parametrize("loss", [2.5, math.inf, -math.inf, math.nan, 1e-9, 1e22])
def test_the_figures_of_a_training_are_there_whatever_the_loss_is(loss: float) -> None:
    figures = {"step": 7, "train_loss": loss, "tokens_per_second": 9.0, "averaged": False}
    found = page(work="train", figures=figures)
    assert value(found, "train_step") == 7
    shown = value(found, "train_loss")
    assert shown == loss or (math.isnan(shown) and math.isnan(loss))


def test_every_metric_has_a_name_of_its_own() -> None:
    found = page(work="w", figures=dict.fromkeys(FIGURES, 1))
    assert len(found) == 10 - 1 + len(FIGURES)


@pytest.mark.parametrize("folder", ['a"b', "a\\b", "a\\nb", "a\nb", "文", ""])
def test_a_label_may_hold_any_text(folder: str) -> None:
    [labels] = page(folder=folder)["biloom_running"]
    assert dict(labels)["folder"] == folder
