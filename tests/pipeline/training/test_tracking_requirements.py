"""A logger that cannot write is refused, with what to do."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from pipeline.lifecycle.stage import StageError
from pipeline.training.tracking_requirements import check_tracking

Tiny = Any  # of conftest.py
ON = "tracking.tensorboard=true"
REFUSED = [
    (
        (ON, "run.output=s3://bucket/run"),
        "tracking.tensorboard can write only local files, but run.output (s3://bucket/run) is in a "
        "store; set tracking.tensorboard_folder to a local folder, or tracking.tensorboard to false "
        "(metrics.jsonl has the same metrics)",
    ),
    (
        (ON, "tracking.tensorboard_folder=s3://bucket/logs"),
        "tracking.tensorboard can write only local files, but tracking.tensorboard_folder "
        "(s3://bucket/logs) is in a store; set tracking.tensorboard_folder to a local folder, or "
        "tracking.tensorboard to false (metrics.jsonl has the same metrics)",
    ),
    (
        (ON,),
        "tracking.tensorboard is true, but tensorboardX is not installed; pip install "
        "'biloom[tensorboard]', or set it to false",
    ),
    (
        ("tracking.wandb=offline",),
        "tracking.wandb is offline, but wandb is not installed; pip install 'biloom[wandb]', or set "
        "it to off",
    ),
]


@pytest.fixture
def _no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)


@pytest.mark.usefixtures("_no_package")
@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_a_logger_that_cannot_write_is_refused(
    settings: tuple[str, ...], message: str, tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(StageError) as caught:
        check_tracking(tiny.config(tmp_path, *settings))
    assert str(caught.value) == message


@pytest.mark.usefixtures("_no_package")
@pytest.mark.parametrize("settings", [(), ("tracking.wandb=auto",)])
def test_loggers_that_are_off_have_no_requirements(
    settings: tuple[str, ...], tiny: Tiny, tmp_path: Path
) -> None:
    check_tracking(tiny.config(tmp_path, *settings))


@pytest.mark.usefixtures("_no_package")
def test_wandb_disabled_by_the_environment_needs_nothing(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    check_tracking(tiny.config(tmp_path, "tracking.wandb=offline"))


def test_event_files_of_a_run_in_a_store_need_a_local_folder(tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    local = f"tracking.tensorboard_folder={tmp_path}"
    check_tracking(tiny.config(tmp_path, ON, local, "run.output=s3://bucket/run"))
