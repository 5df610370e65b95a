"""Processes that create one object at the same time: exactly one of them succeeds."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preprocess.files import storage

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RACES = 20
# Reads when to begin, and prints the numbers of the files that it created.
PROGRAM = """
import sys
import time
from preprocess.files import storage
from preprocess.files.exclusive import create_exclusive

folder, name, races = sys.argv[1], sys.argv[2], int(sys.argv[3])
storage.exists(folder)  # connects
print("ready", flush=True)
begin = float(input())
for number in range(races):
    time.sleep(max(0, begin + number / 2 - time.time()))
    if create_exclusive(f"{folder}/{number}", name.encode()):
        print(number, flush=True)
"""


@pytest.fixture
def folder(seaweedfs: str, bucket_at: Any) -> Iterator[str]:
    # moto looks for the object and then writes it, so that several requests may succeed.
    with bucket_at(seaweedfs) as url:
        yield f"{url}/race"


def test_one_of_several_processes_creates_a_file(folder: str) -> None:
    names = ("a", "b", "c")
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, folder, name, str(RACES)],
            stdin=pipe,
            stdout=pipe,
            text=True,
            cwd=ROOT,
        )
        for name in names
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    begin = f"{time.time() + 1}\n"
    for process in processes:
        assert process.stdin
        process.stdin.write(begin)
        process.stdin.flush()
    created = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(int(number) for numbers in created for number in numbers) == [*range(RACES)]
    for name, numbers in zip(names, created, strict=True):
        for number in numbers:
            assert storage.read_bytes(f"{folder}/{number}") == name.encode()
