"""Files of a user's project that have the names of biloom's modules are neither run nor in the way."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from _biloom import PACKAGES, foreign_files

Tiny = Any  # of conftest.py
ROOT = Path(__file__).parents[1]
COMMAND = "import sys; from _biloom import main; sys.exit(main())"
BOOBY_TRAP = "print('RUN'); raise SystemExit(9)\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with modules that no process of biloom may run."""
    folder = tmp_path / "project"
    (folder / "pipeline").mkdir(parents=True)
    for name in ("preprocess.py", "pipeline/__init__.py", "lightning_modules.py", "biloom.py"):
        (folder / name).write_text(BOOBY_TRAP)
    return folder


def python(
    project: Path, *arguments: str, path: tuple[Path, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    """Run Python in ``project``, which comes first on PYTHONPATH, before biloom's own folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_runs_beside_a_project_of_such_names(project: Path) -> None:
    entry = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import _biloom; sys.path.pop(0); "
    run = f"sys.path.insert(0, {str(project)!r}); sys.argv[1:] = ['--version']; _biloom.main()"
    answer = python(project, "-P", "-c", entry + run)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("biloom ")


def test_the_console_script_starts_in_a_module_that_no_project_has() -> None:
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"biloom": "_biloom:main"}


def test_worker_processes_import_the_packages_of_biloom(tiny: Tiny, project: Path) -> None:
    workers = ["runner.options.mode=multi_processing", "runner.options.workers=2"]
    arguments = ["prepare", *tiny.arguments(project / "out", *workers)]
    answer = python(project, "-P", "-c", COMMAND, *arguments, path=(project, ROOT))
    assert answer.returncode == 0, answer.stderr
    assert "RUN" not in answer.stdout + answer.stderr


def test_the_api_is_imported_and_tells_of_modules_of_such_names(tmp_path: Path) -> None:
    (tmp_path / "preprocess.py").write_text(BOOBY_TRAP)
    answer = python(tmp_path, "-c", "from biloom import VectorCache", path=(ROOT,))
    assert answer.returncode == 0
    assert answer.stdout == ""
    assert (
        f"UserWarning: {tmp_path}/preprocess.py has the name of a package of biloom; "
        "`import preprocess` imports biloom's here\n" in answer.stderr
    )


def test_a_module_that_is_imported_already_is_named(tmp_path: Path) -> None:
    (tmp_path / "preprocess.py").write_text("")
    code = "import preprocess; from biloom import VectorCache"
    answer = python(tmp_path, "-c", code, path=(ROOT,))
    assert answer.stderr.splitlines()[-1] == (
        f"ImportError: {tmp_path}/preprocess.py is imported as 'preprocess', which is the name of a "
        "package of biloom; rename it"
    )
    answer = python(tmp_path, "-c", f"import preprocess; {COMMAND}", "--version", path=(ROOT,))
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"biloom: {tmp_path}/preprocess.py is imported as")


def test_the_module_biloom_is_the_command(tmp_path: Path) -> None:
    answer = python(tmp_path, "-m", "biloom", "--version", path=(ROOT,))
    assert answer.stdout.startswith("biloom ")


def test_biloom_alone_is_not_in_its_own_way(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()  # without __init__.py: a package later on the path comes first
    assert list(foreign_files([str(tmp_path), str(ROOT)])) == []
    (tmp_path / "pipeline" / "__init__.py").touch()
    assert list(foreign_files([str(tmp_path), str(ROOT)])) == [
        ("pipeline", str(tmp_path / "pipeline" / "__init__.py"))
    ]
    assert PACKAGES == ("preprocess", "lightning_modules", "pipeline")
