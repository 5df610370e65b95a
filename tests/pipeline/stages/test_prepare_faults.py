"""Kills, full disks and damage at any moment: a corpus is complete and the same, or missing."""

import gzip
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from preprocess.corpus import segment, shard_writer
from preprocess.files import storage
from preprocess.files.manifest import check_files, read_manifest

Command = Any  # of conftest.py
Capture = pytest.CaptureFixture[str]
Process = Any
IN_MEMORY = "runner.options.mode=in_memory"
PROCESSES = ("runner.options.mode=multi_processing", "runner.options.workers=2")
FILES = 240
WORDS = [f"{a}{b}" for a in ("ka", "לו", "水", "ну") for b in ("na", "ри", "典", "ti", "ק")]
AGAIN = "and run the same command to resume, or choose another run.output"


@dataclass(frozen=True)
class Text:
    """Many small files, and a large one whose unit has several segments."""

    root: Path
    content: str = ""

    def arguments(self, output: Path, *overrides: str) -> list[str]:
        words = [
            "prepare",
            f"prepare.input={self.root}/raw/*",
            f"prepare.tokenizer={self.root}/tokenizer",
            "prepare.unit_bytes=60000",
            "prepare.part_tokens=1500",
            "prepare.shard_tokens=1500",
            "prepare.valid_fraction=0.1",
            "prepare.keep_dropped=true",
            "prepare.near_duplicates.similarity=0.9",
            "prepare.filters.min_characters=4",
            "tokenizer.kind=char",
            f"run.output={output}",
            *overrides,
        ]
        # An override takes the place of the one here, because a key may be set once only.
        return [*{word.partition("=")[0]: word for word in words}.values()]


def lines(draw: random.Random, number: int) -> str:
    """Return short documents; one in twelve is long and almost equal to one of ten others."""
    made = []
    for _ in range(number):
        words = draw.choices(("ka", "lo", "水", "נו", "пар"), k=draw.randint(1, 9))
        if draw.random() < 1 / 12:
            words += random.Random(draw.randrange(10)).choices(WORDS, k=60)
        made.append(" ".join(words) + "\n")
    return "".join(made)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    root = tmp_path_factory.mktemp("faults")
    (root / "raw").mkdir()
    draw = random.Random(11)
    for number in range(FILES):
        (root / "raw" / f"{number:04d}.txt").write_text(lines(draw, 12), encoding="utf-8")
    (root / "raw" / "big.txt.gz").write_bytes(gzip.compress(lines(draw, 3000).encode()))
    made = Text(root)
    assert main(["tokenizer", *made.arguments(root, "prepare.tokenizer=null")[1:]]) == 0
    assert main(made.arguments(root, IN_MEMORY)) == 0
    return Text(root, read_manifest(f"{root}/prepare", "prepare").content)


def every_file(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a finished corpus, without files that hold times and folders."""
    told = ("stats.json", "config.yaml", "manifest.json")
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in told)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_whole(output: Path, text: Text) -> None:
    """Check that a corpus is the same, with every document counted and no other file."""
    manifest = read_manifest(f"{output}/prepare", "prepare")
    assert manifest.content == text.content
    assert check_files(f"{output}/prepare", manifest) == []
    documents = manifest.details["documents"]
    assert documents["read"] == documents["written"] + sum(documents["dropped"].values())
    assert every_file(output / "prepare") == every_file(text.root / "prepare")


def done(output: Path, kind: str) -> int:
    """Return the number of records of a kind."""
    return sum(1 for _ in (output / "prepare" / "_work").glob(f"*/{kind}/[0-9h]*"))


def wait_until(reached: Callable[[], bool], process: Process | None = None) -> None:
    end = time.monotonic() + 60
    while not reached() and (process is None or process.poll() is None):
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.002)


# Kills


def killed_writers(
    biloom: Command, arguments: list[str], output: Path, writes: Callable[[], int]
) -> int:
    """Run and kill writers until one finishes, and return how many were killed."""
    for kills in range(100):
        answer = biloom.run_until_killed(arguments, writes())
        if answer == (0, ""):
            return kills
        assert answer == (-signal.SIGKILL, ""), answer
        assert not (output / arguments[0] / "manifest.json").exists()
    raise AssertionError("no end in sight")


def test_a_writer_killed_repeatedly_ends_with_the_same_corpus(
    biloom: Command, text: Text, tmp_path: Path
) -> None:
    writes = iter((3, 25, 60))
    arguments = text.arguments(tmp_path)
    assert killed_writers(biloom, arguments, tmp_path, lambda: next(writes, 10_000)) == 3
    assert_whole(tmp_path, text)


@pytest.mark.slow
def test_a_writer_killed_at_almost_every_write_ends_with_the_same_corpus(
    biloom: Command, text: Text, tmp_path: Path
) -> None:
    # The shards of the large file are one task, with some 100 writes, which starts again if it is killed.
    draw = random.Random(5)
    arguments = text.arguments(tmp_path)
    assert killed_writers(biloom, arguments, tmp_path, lambda: draw.randint(14, 130)) > 3
    assert_whole(tmp_path, text)


def test_a_count_of_words_killed_repeatedly_ends_with_the_same_tokenizer(
    biloom: Command, text: Text, tmp_path: Path
) -> None:
    def count(output: Path) -> list[str]:
        options = text.arguments(output, "tokenizer.kind=word", "prepare.tokenizer=null")
        return ["tokenizer", *options[1:]]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([*count(whole), IN_MEMORY]) == 0
    writes = iter((2, 6, 9))
    assert killed_writers(biloom, count(killed), killed, lambda: next(writes, 10_000)) == 3
    assert every_file(killed) == every_file(whole)


def test_a_file_changed_while_its_unit_runs_is_not_mixed_with_its_old_contents(
    text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    shutil.copytree(text.root, tmp_path / "text")
    own = Text(tmp_path / "text")
    with monkeypatch.context() as patched:
        fail_at_call(patched, segment, "write_keys", 3)
        assert main(own.arguments(tmp_path, IN_MEMORY)) == 70
    raw = own.root / "raw"
    sound = (raw / "0000.txt").read_bytes()
    (raw / "0000.txt").write_bytes(sound[:-2] + b"x\n")
    for file in raw.iterdir():
        os.utime(file, ns=(1, 1))
    capsys.readouterr()
    (work,) = (tmp_path / "prepare" / "_work").iterdir()
    assert main(own.arguments(tmp_path, IN_MEMORY)) == 2
    assert capsys.readouterr().err == (
        f"biloom: one of the files from '0000.txt' to '0095.txt' changed after an unfinished "
        f"run started to read them; delete {work} to start again\n"
    )
    # Files that were only touched are read on from where it stopped.
    (raw / "0000.txt").write_bytes(sound)
    with monkeypatch.context() as patched:
        fail_at_call(patched, segment, "write_keys", 1)
        assert main(own.arguments(tmp_path, IN_MEMORY)) == 70
    assert (work / "segments").exists()
    assert main(own.arguments(tmp_path, IN_MEMORY)) == 0
    assert read_manifest(f"{tmp_path}/prepare", "prepare").content == text.content


@pytest.mark.slow
def test_drivers_killed_at_any_moment_of_a_run_in_processes_end_with_the_same_corpus(
    biloom: Command, text: Text, tmp_path: Path
) -> None:
    moments = [("segments", 1), ("units", 2), ("drops", 1), ("groups", 1), ("groups", 2)]
    for kind, number in moments:
        with biloom.start(*text.arguments(tmp_path, *PROCESSES)) as driver:
            wait_until(lambda: done(tmp_path, kind) >= number, driver)  # noqa: B023
            driver.send_signal(signal.SIGKILL)
        assert driver.returncode == -signal.SIGKILL, "it was done before it could be killed"
    assert biloom.run(*text.arguments(tmp_path, *PROCESSES)).returncode == 0
    assert_whole(tmp_path, text)


@pytest.mark.slow
def test_processes_killed_at_random_moments_end_with_the_same_corpus(
    biloom: Command, text: Text, tmp_path: Path
) -> None:
    """The driver or one of its workers is killed ten times, at moments drawn anew in each run."""
    seed = random.randrange(1 << 32)
    draw, killed = random.Random(seed), 0
    for _ in range(40):
        with biloom.start(*text.arguments(tmp_path, *PROCESSES)) as driver:
            time.sleep(draw.uniform(1, 5))
            alive = [driver.pid, *driver.descendants()]
            victim = draw.choice(alive)
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed += 1
            driver.communicate(timeout=60)
        assert driver.returncode in (0, 3, -signal.SIGKILL), f"seed {seed}"
        wait_until(lambda: not any(Path(f"/proc/{one}").exists() for one in alive))  # noqa: B023
        if driver.returncode == 0 or killed == 10:
            break
    assert biloom.run(*text.arguments(tmp_path, *PROCESSES)).returncode == 0
    assert_whole(tmp_path, text)
    assert not (tmp_path / "prepare" / "_work").exists()


@pytest.mark.slow
def test_workers_killed_repeatedly_end_with_the_same_corpus(
    biloom: Command, text: Text, tmp_path: Path
) -> None:
    for kind in ("segments", "units", "drops", "groups"):
        with biloom.start(*text.arguments(tmp_path, *PROCESSES)) as driver:
            # Records of the earlier run exist before the workers start.
            wait_until(lambda: driver.children() != [], driver)
            worker = driver.children()[-1]
            wait_until(lambda: done(tmp_path, kind) > 0, driver)  # noqa: B023
            os.kill(worker, signal.SIGKILL)
            _, err = driver.communicate(timeout=60)
        assert (driver.returncode, err.count("\n")) == (3, 1)
        assert err.startswith("biloom: a worker process was killed, ")
    assert biloom.run(*text.arguments(tmp_path, *PROCESSES)).returncode == 0
    assert_whole(tmp_path, text)


def fail_at_call(patched: pytest.MonkeyPatch, module: Any, name: str, number: int) -> None:
    """Let a function of ``module`` raise at the call with this number and at all later ones."""
    calls, sound = iter(range(1, number)), getattr(module, name)

    def fails(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise RuntimeError("a fault of ours")
        return sound(*arguments)

    patched.setattr(module, name, fails)


@pytest.mark.parametrize(
    ("module", "name", "number"), [(segment, "write_part", 7), (shard_writer, "shard_counts", 3)]
)
def test_a_bug_in_a_worker_leaves_no_manifest_and_work_to_resume(
    module: Any,
    name: str,
    number: int,
    text: Text,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        fail_at_call(patched, module, name, number)
        assert main(text.arguments(tmp_path, IN_MEMORY)) == 70
    assert not (tmp_path / "prepare" / "manifest.json").exists()
    assert main(text.arguments(tmp_path, IN_MEMORY)) == 0
    assert_whole(tmp_path, text)


def test_temporary_files_of_killed_writers_are_gone_after_the_next_run(
    text: Text, tmp_path: Path
) -> None:
    folder = tmp_path / "prepare"
    for _ in ("one that works", "one that finds it done"):
        (folder / "_work" / "parts").mkdir(parents=True)
        for orphan in (folder, folder / "_work" / "parts"):
            path = orphan / f"{storage.TEMPORARY}host-1-train-000000-000.bin"
            path.write_bytes(b"half")
            os.utime(path, (0, 0))
        assert main(text.arguments(tmp_path, IN_MEMORY)) == 0
        assert_whole(tmp_path, text)


# Full disks


def test_a_full_disk_is_reported_and_the_work_resumes_once_there_is_room(
    text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Even if the message of the failure cannot be written."""
    rename = Path.replace
    for writes in (0, 2, 30, 20, 10):
        left = iter(range(writes))

        def full(path: Path, target: Path, left: Iterator[int] = left) -> Path:
            if next(left, None) is None:
                raise OSError(28, "No space left on device")
            return rename(path, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", full)
            assert main(text.arguments(tmp_path, IN_MEMORY)) == 3
        err = capsys.readouterr().err
        assert err.startswith(f"biloom: {tmp_path}/prepare/")
        assert err.endswith(
            f": cannot be written (No space left on device); free some space {AGAIN}\n"
        )
        assert err.count("\n") == 1
        assert not list(tmp_path.rglob(f"{storage.TEMPORARY}*"))
    assert main(text.arguments(tmp_path, IN_MEMORY)) == 0
    assert_whole(tmp_path, text)


def test_a_file_above_the_size_limit_of_a_worker_process_is_reported(
    biloom: Command, text: Text, tmp_path: Path
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    answer = biloom.run(*text.arguments(tmp_path, *PROCESSES), preexec_fn=limit)
    assert answer.returncode == 3
    told = answer.stderr.removeprefix("biloom: ").splitlines()
    assert told
    for line in told:
        assert line.startswith(f"{tmp_path}/prepare/_work/")
        assert line.endswith(f": cannot be written (File too large); free some space {AGAIN}")
    assert main(text.arguments(tmp_path, IN_MEMORY)) == 0
    assert_whole(tmp_path, text)


FULL = """\
set -e
mount -t tmpfs -o size=100k tmpfs "$1"
shift
set +e
"$@"
echo $? >&2
mount -o remount,size=50m tmpfs "$DISK"
"$@"
echo $? >&2
cp -r "$DISK/prepare" "$KEPT"
"""


@pytest.mark.slow
def test_a_really_full_disk_is_reported_and_the_work_resumes(
    biloom: Command, text: Text, tmp_path: Path
) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    alone = ["unshare", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("no right to mount a disk of its own")
    answer = subprocess.run(
        [*alone, "sh", "-c", FULL, "sh", disk, biloom.script, *text.arguments(disk, *PROCESSES)],
        env={**os.environ, "DISK": str(disk), "KEPT": str(kept)},
        capture_output=True,
        text=True,
        check=False,
    )
    *told, first, second = answer.stderr.splitlines()
    assert (first, second) == ("3", "0"), answer.stderr
    assert told
    assert all(
        "cannot be written (No space left on device); free some space" in one for one in told
    )
    assert_whole(kept, text)


# Damage


@pytest.fixture
def thousand(text: Text, tmp_path: Path) -> Text:
    """A thousand good files, and among them one with damaged compression."""
    root = tmp_path / "thousand"
    (root / "raw").mkdir(parents=True)
    shutil.copytree(text.root / "tokenizer", root / "tokenizer")
    for number in range(1000):
        (root / "raw" / f"{number:04d}.txt").write_text(f"number {number}\nand {number}\n")
    packed = bytearray(gzip.compress(random.Random(3).randbytes(60_000).hex().encode()))
    packed[30_000] ^= 0xFF
    (root / "raw" / "0500.txt.gz").write_bytes(packed)
    return Text(root)


def test_a_damaged_file_among_a_thousand_stops_the_job_and_is_named(
    thousand: Text, tmp_path: Path, capsys: Capture
) -> None:
    assert main(thousand.arguments(tmp_path, IN_MEMORY)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"biloom: {thousand.root}/raw/0500.txt.gz: damaged compressed file (")
    assert err.endswith("with prepare.damaged_files=skip\n")
    assert err.count("\n") == 1
    assert not (tmp_path / "prepare" / "manifest.json").exists()


def test_a_damaged_file_among_a_thousand_can_be_skipped_and_counted(
    thousand: Text, tmp_path: Path
) -> None:
    options = ("prepare.damaged_files=skip", "prepare.near_duplicates.similarity=null")
    assert main(thousand.arguments(tmp_path, IN_MEMORY, *options)) == 0
    documents = read_manifest(f"{tmp_path}/prepare", "prepare").details["documents"]
    assert documents["dropped"]["damaged_file"] == 1
    assert documents["written"] == 2000
    assert documents["read"] == 2000 + sum(documents["dropped"].values())
    rows = [
        json.loads(line)
        for file in (tmp_path / "prepare").glob("dropped-*")
        for line in file.read_text().splitlines()
    ]
    (row,) = (row for row in rows if row["reason"] == "damaged_file")
    assert row["where"] == "0500.txt.gz"
    # Without the path, which differs between machines.
    assert row["excerpt"].startswith("0500.txt.gz: damaged compressed file")
