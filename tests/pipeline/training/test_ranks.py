"""The processes that a training starts: none outlives it, and one that dies is named."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.training import ranks as module
from pipeline.training.processes import Processes
from pipeline.training.ranks import LocalRanks
from preprocess.errors import JobError, UserError


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The module that started processes run; the test writes it."""
    monkeypatch.setattr(module, "MODULE", "program_of_a_rank")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "program_of_a_rank.py"


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (
            "os.kill(os.getpid(), 9)",
            JobError,
            "was killed by SIGKILL, perhaps because memory ran out",
        ),
        ("os.kill(os.getpid(), 11)", JobError, "was killed by SIGSEGV"),
        ("sys.exit(3)", JobError, "ended with exit code 3; its own message is above"),
        ("sys.exit(2)", UserError, "ended with exit code 2; its own message is above"),
    ],
)
def test_a_process_that_dies_is_named(
    code: str, kind: type[UserError], message: str, program: Path
) -> None:
    program.write_text(f"import os, sys\n{code}\n")
    ranks = LocalRanks(Processes(world=2))
    try:
        ranks.start(1, None)
        deadline = time.monotonic() + 60
        while not (error := ranks.lost()):
            assert time.monotonic() < deadline
        with pytest.raises(kind, match=r"^the process of rank 1 \(number \d+\) of this") as caught:
            ranks.check()
        assert message in str(caught.value)
        assert isinstance(error, JobError) is (kind is JobError)
    finally:
        ranks.kill()


def test_processes_that_end_well_are_not_missed(program: Path) -> None:
    program.write_text("")
    ranks = LocalRanks(Processes(world=3))
    ranks.start(1, None)
    ranks.finish()
    ranks.check()


PARENT = """
import sys, time
from pipeline.training import ranks as module
from pipeline.training.processes import Processes
module.MODULE = "program_of_a_rank"
ranks = module.LocalRanks(Processes(world=2))
{code}
ranks.start(1, None)
time.sleep(60)
"""
CHILD = """
import os, sys, time
from preprocess.work.resources import end_with_parent
print(os.getpid(), flush=True)
end_with_parent(int(sys.argv[1]))
time.sleep(60)
"""


def test_a_process_ends_with_the_one_that_started_it(program: Path) -> None:
    program.write_text(CHILD)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(code="")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}/stat").exists():
        assert time.monotonic() < deadline, "it is left behind"
        time.sleep(0.05)


def test_a_main_thread_that_does_not_notice_a_death_is_ended(program: Path) -> None:
    program.write_text("import os\nos.kill(os.getpid(), 9)\n")
    answer = subprocess.run(
        [sys.executable, "-c", PARENT.format(code="module.LEAVE_SECONDS = 0.2")],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env={**os.environ},
    )
    assert answer.returncode == 3
    assert answer.stderr.startswith("biloom: the process of rank 1")
