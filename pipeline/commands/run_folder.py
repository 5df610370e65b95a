"""`biloom report` and `biloom compare`, which need only the folders of runs."""

from collections.abc import Sequence

from pipeline.console import Console
from pipeline.lifecycle.order import STAGE_ORDER
from preprocess.errors import UserError, without_secrets
from preprocess.files import storage
from preprocess.files.manifest import NAME, read_manifest


class RunFolderError(UserError):
    """A folder that is not a run folder, or too few of them."""


def check_run(path: str) -> str:
    """Return the absolute path or URL of the run folder ``path``.

    Raises:
        RunFolderError: the folder holds no stage of a run.
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


def _check_no_secrets(path: str) -> None:
    if without_secrets(path) != path:
        raise RunFolderError(
            f"{path} holds a user, a password, a token or a signature, which would be copied to the page; "
            "set it in an environment variable or a credentials file instead"
        )


def report_again(path: str) -> None:
    """Write ``report.html`` of a run folder again and print the report.

    Raises:
        RunFolderError: the URL holds a secret, which would appear in the report.
        UserError: the folder holds no finished stage of a run.
        ManifestError: a stage that the report needs is not finished.
    """
    _check_no_secrets(path)
    from pipeline.reports.run_report import config_of_run, report

    report(config_of_run(check_run(path)), Console())


def compare_runs(paths: Sequence[str], page: str | None) -> None:
    """Print the settings that differ between runs, and their figures.

    Args:
        paths: two or more run folders.
        page: HTML file to write the comparison to; None writes none.

    Raises:
        RunFolderError: fewer than two folders are given, or one is not that of a run.
    """
    if len(paths) < 2:
        raise RunFolderError("`biloom compare` needs two or more run folders")
    if page is not None:
        for path in paths:
            _check_no_secrets(path)
    runs = [check_run(path) for path in paths]
    from pipeline.reports.comparison import compare

    compare(runs, Console(), page)
