"""`biloom report` and `biloom compare`: finished runs, known by their folders alone."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle.order import STAGE_ORDER
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import NAME, read_manifest

CONFIG = "config.yaml"


class RunFolderError(UserError):
    """A folder that is not one of a run; the message says what to do."""


def check_run(path: str) -> str:
    """The absolute path or URL of the run folder ``path``.

    Raises:
        RunFolderError: it holds no stage of a run.
    """
    folder = storage.absolute(path)
    if any(storage.exists(storage.join(folder, stage)) for stage in STAGE_ORDER):
        return folder
    if storage.exists(storage.join(folder, NAME)):
        stage = read_manifest(folder).stage
        raise RunFolderError(
            f"{folder} is the folder of one stage ({stage}); name the run folder above it, or look "
            f"at the stage with `biloom inspect`"
        )
    raise RunFolderError(
        f"{folder} holds no stage of a run ({', '.join(STAGE_ORDER)}); name the folder that was "
        "given as run.output"
    )


def config_of_run(path: str) -> Config:
    """The config of the run's last finished stage; its ``run.output`` is ``path``.

    Raises:
        RunFolderError: the folder holds no finished stage of a run.
    """
    folder = check_run(path)
    for stage in reversed(STAGE_ORDER):
        files = [storage.join(folder, stage, name) for name in (CONFIG, NAME)]
        if all(map(storage.exists, files)):
            break
    else:
        raise RunFolderError(f"{folder} holds no finished stage; see `biloom status {path}`")
    with TemporaryDirectory(prefix="biloom-config-") as scratch:
        copy = Path(scratch, CONFIG)
        copy.write_bytes(storage.read_bytes(files[0]))
        config = load_config([str(copy)], [])
    # The folder may have moved since. An override could not give every path: "[a]" is a list.
    return config.model_copy(update={"run": config.run.model_copy(update={"output": folder})})


def report_again(path: str) -> None:
    """Write ``report.html`` of a run folder again and show the report.

    Raises:
        RunFolderError: the folder holds no finished stage of a run.
        ManifestError: a stage that the report needs is not finished.
    """
    config = config_of_run(path)
    from pipeline.reports.run_report import report

    report(config, Console())


def compare_runs(paths: Sequence[str], page: str | None) -> None:
    """Show in which settings and figures runs differ; ``page`` is an HTML file to write.

    Raises:
        RunFolderError: fewer than two folders are given, or one is not that of a run.
    """
    if len(paths) < 2:
        raise RunFolderError("`biloom compare` needs two or more run folders")
    runs = [check_run(path) for path in paths]
    comparison = importlib.import_module("pipeline.reports.comparison")
    comparison.compare(runs, Console(), page)
