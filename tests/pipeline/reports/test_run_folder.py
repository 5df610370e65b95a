"""Figures and metrics that somebody else wrote."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.reports.run_folder import read_metrics, read_result
from preprocess.files.verified import DamagedResult


@pytest.mark.parametrize("value", ["0.1", [2], {"a": 1}, 10**400])
def test_metrics_that_are_no_numbers_are_refused(
    trained: Path, tmp_path: Path, as_stranger: Callable[[Path], None], value: Any
) -> None:
    folder = tmp_path / "train"
    shutil.copytree(trained / "train", folder)
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": null}\n')
    as_stranger(folder)
    assert read_metrics(str(folder)) == [{"step": 1, "loss": None}]
    rows = ({"step": 1}, {"step": 2, "loss": value})
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    as_stranger(folder)

    with pytest.raises(DamagedResult, match=r"metrics\.jsonl is damaged \(line 2: 'loss' is "):
        read_metrics(str(folder))


def test_figures_of_another_type_are_refused(
    trained: Path, tmp_path: Path, as_stranger: Callable[[Path], None]
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    folder = tmp_path / "run" / "export"
    (folder / "stats.json").write_text('{"seconds": "long"}')
    as_stranger(folder)

    with pytest.raises(DamagedResult, match=r"stats\.json is damaged \('seconds': Input should be"):
        read_result(str(folder), "export")
    assert main(["status", str(tmp_path / "run")]) == 1
    assert main(["compare", str(tmp_path / "run"), str(trained)]) == 2
