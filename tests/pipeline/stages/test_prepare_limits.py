"""A job that reaches a limit of memory, threads or files ends soon, with one message, and resumes."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from preprocess.files.manifest import read_manifest

Tiny = Any  # of conftest.py
Command = Any
WORKERS = "runner.options.workers=2"
SECONDS = 90
"""Far above the few seconds that it takes, far below `runner.stall_seconds`."""


def limit(name: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(name, (value, value))


def assert_fails_and_resumes(
    tiny: Tiny,
    output: Path,
    biloom: Command,
    mode: str,
    words: str,
    program: Sequence[object] = (),
    **options: Any,
) -> None:
    arguments = ["prepare", *tiny.arguments(output, f"runner.options.mode={mode}", WORKERS)]
    answer = subprocess.run(
        [*(program or [biloom.script]), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        **options,
    )
    assert answer.returncode == 3, answer.stderr
    assert answer.stderr.startswith("biloom: ")
    assert answer.stderr.count("\n") == 1
    assert words in answer.stderr
    assert "Run the same command" in answer.stderr
    assert not list(output.rglob("lock.json"))
    assert biloom.run(*arguments).returncode == 0
    assert (
        read_manifest(f"{output}/prepare").content == read_manifest(f"{tiny.root}/prepare").content
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep this limit")
@pytest.mark.parametrize(
    ("mode", "megabytes"),
    [("in_memory", 450), ("multi_processing", 1000), ("multi_threading", 1000)],
)
def test_little_address_space_is_one_message(
    mode: str, megabytes: int, tiny: Tiny, tmp_path: Path, biloom: Command
) -> None:
    size = megabytes * 1_024_000
    assert_fails_and_resumes(
        tiny,
        tmp_path,
        biloom,
        mode,
        f"raise the limit (ulimit -v {size // 1024})",
        preexec_fn=limit(resource.RLIMIT_AS, size),
    )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["multi_processing", "multi_threading"])
def test_few_open_files_are_one_message(
    mode: str, tiny: Tiny, tmp_path: Path, biloom: Command
) -> None:
    assert_fails_and_resumes(
        tiny,
        tmp_path,
        biloom,
        mode,
        "no further file can be opened; raise the limit (ulimit -n 12)",
        preexec_fn=limit(resource.RLIMIT_NOFILE, 12),
    )


@pytest.mark.slow
def test_few_threads_are_one_message(tiny: Tiny, biloom: Command) -> None:
    # The kernel counts the processes of other users than root only.
    capabilities = "+dac_override,+dac_read_search"
    other = [
        *("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"),
        *(f"--inh-caps=-all,{capabilities}", f"--ambient-caps={capabilities}"),
        *("prlimit", "--nproc=40"),
    ]
    if os.geteuid() or not all(map(shutil.which, ("setpriv", "prlimit"))):
        pytest.skip("no right to run as another user")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(tiny.root / "tokenizer", folder / "tokenizer")
        shutil.copy(tiny.root / "corpus.txt", folder)
        subprocess.run(["chmod", "-R", "a+rwX", folder], check=True)
        arguments = tiny.arguments(
            folder,
            "runner.options.mode=multi_processing",
            WORKERS,
            f"prepare.input={folder}/corpus.txt",
            f"prepare.tokenizer={folder}/tokenizer",
        )
        command = [*other, biloom.script, "prepare", *arguments]
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert (answer.returncode, answer.stderr) == (
            3,
            "biloom: no further thread can be started; raise the limit (ulimit -u 40). The job needs "
            "about 68 threads and 16 more open files for 2 workers (runner.options.workers, "
            "runner.options.mode=multi_processing); the mode in_memory needs none. Run the same command "
            "again to resume\n",
        )
        assert biloom.run("prepare", *arguments).returncode == 0


FAILING = """\
import sys
from preprocess.corpus import segment

def fails(*arguments, **options):
    raise MemoryError

segment.write_keys = fails
"""
DRIVER = f"""\
{FAILING}
import logging
logging.getLogger().addHandler(logging.NullHandler())  # for what Beam says when it is imported
from pipeline.beam import direct_worker
from pipeline.cli import main
direct_worker.WORKER = {FAILING!r} + direct_worker.WORKER
sys.exit(main())
"""


@pytest.mark.parametrize("mode", ["in_memory", "multi_processing", "multi_threading"])
def test_memory_that_runs_out_in_a_worker_is_one_message(
    mode: str, tiny: Tiny, tmp_path: Path, biloom: Command
) -> None:
    python = biloom.script.with_name("python")
    assert_fails_and_resumes(
        tiny, tmp_path, biloom, mode, "memory ran out", program=[python, "-P", "-c", DRIVER]
    )
