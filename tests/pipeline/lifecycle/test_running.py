"""A stage is done, resumed or refused; a folder has one writer; the manifest is written last."""

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle.lock import LockedError
from pipeline.lifecycle.plan import plan_of
from pipeline.lifecycle.running import run_stage
from pipeline.lifecycle.stage import Made, Stage, StageError, StageFolder, StageWork
from pipeline.progress import Progress
from preprocess.files import storage
from preprocess.files.manifest import ManifestError, check_files, read_manifest
from preprocess.reading import changed_inputs
from preprocess.work import folder as work_folder
from preprocess.work import records

TOLD = "  add --overwrite to move it aside, or set another run.output"


def write_data(place: StageFolder) -> None:
    storage.write_bytes(place.new_file("data.bin"), b"made")


@dataclass(frozen=True)
class Fake(Stage):
    """A stage that writes one file."""

    work: Callable[[StageFolder], None] = write_data
    made: list[str] = field(default_factory=list)

    def make(self, config: Config, place: StageFolder, console: Console) -> Made:
        self.made.append(place.folder)
        self.work(place)
        return Made((place.record("data.bin"),), {"answer": 42})

    def load_work(self) -> StageWork:
        return StageWork(self.make)


@dataclass
class Folder:
    """The folder that the fake stage writes, and what it printed."""

    config: Config
    printed: StringIO = field(default_factory=StringIO)

    @property
    def path(self) -> Path:
        return Path(self.config.run.output) / "fake"

    @property
    def lock(self) -> Path:
        return self.path / "_work" / "lock.json"

    def run(self, stage: Fake, overwrite: bool = False) -> str:
        """Run ``stage`` and return what it printed below its name."""
        self.printed.truncate(self.printed.seek(0))
        console = Console(RichConsole(file=self.printed, width=1000))
        run_stage(stage, stage.load_work, self.config, console, overwrite)
        return self.printed.getvalue().partition("\n")[2]

    def put_lock(self, **holder: Any) -> None:
        self.lock.parent.mkdir(parents=True)
        self.lock.write_text(json.dumps({"host": socket.gethostname(), **holder}))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(load_config([], ["prepare.input=x", f"run.output={tmp_path}"]))


@pytest.fixture
def stage() -> Fake:
    return asking(steps=1)


def asking(**settings: Any) -> Fake:
    return Fake("fake", 1, lambda config: settings)


def fail(place: StageFolder) -> None:
    storage.write_bytes(place.new_file("half.bin"), b"made")
    raise RuntimeError("half way")


def leave_unfinished(folder: Folder, stage: Fake) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        folder.run(replace(stage, work=fail))


# Done, resumed or refused


def test_a_finished_stage_does_not_run_again(folder: Folder, stage: Fake) -> None:
    assert folder.run(stage) == "  done in 0:00\n"
    assert folder.run(stage) == "  already done\n"
    assert len(stage.made) == 1


def test_a_finished_folder_holds_the_config_the_stats_the_manifest_and_the_data(
    folder: Folder, stage: Fake
) -> None:
    folder.run(stage)
    names = sorted(path.name for path in folder.path.iterdir())
    assert names == ["config.yaml", "data.bin", "manifest.json", "stats.json"]
    assert load_config([str(folder.path / "config.yaml")], []) == folder.config
    assert "seconds" in json.loads((folder.path / "stats.json").read_text())
    manifest = read_manifest(str(folder.path), "fake")
    assert manifest.asked == {"stage": "fake", "stage_version": 1, "steps": 1}
    assert manifest.details == {"answer": 42}
    assert [file.name for file in manifest.beside] == ["config.yaml", "stats.json"]
    assert not check_files(str(folder.path), manifest)


def test_other_settings_are_refused_with_every_key_that_differs(
    folder: Folder, stage: Fake
) -> None:
    folder.run(stage)
    with pytest.raises(StageError) as caught:
        folder.run(asking(steps=2, rows=3))
    assert str(caught.value) == (
        f"{folder.path} holds a result made with other settings or inputs:\n"
        f"    rows: added 3\n    steps: 1 -> 2\n{TOLD}"
    )


def test_another_version_of_the_stage_is_refused(folder: Folder, stage: Fake) -> None:
    folder.run(stage)
    with pytest.raises(StageError, match="stage_version: 1 -> 2") as caught:
        folder.run(replace(stage, version=2))
    assert str(caught.value).endswith(
        f"{TOLD}\n  stage_version: this version of biloom makes this stage in another way than the "
        "version that began it; to keep the folder, finish it with that version"
    )


def test_work_that_another_version_began_is_resumed_and_told(folder: Folder, stage: Fake) -> None:
    def fail(place: StageFolder) -> None:
        record = {**asdict(Progress()), "written": 1.0, "process": "", "biloom": "0.0.9"}
        storage.write_bytes(work_folder.status_file(place.work), json.dumps(record).encode())
        raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        folder.run(replace(stage, work=fail))
    assert folder.run(stage) == (
        "  resuming unfinished work, which biloom 0.0.9 began\n  done in 0:00\n"
    )


def test_overwrite_moves_each_old_result_aside_complete(folder: Folder, stage: Fake) -> None:
    folder.run(stage)
    for number, steps in ((1, 2), (2, 3)):
        said = folder.run(asking(steps=steps), overwrite=True)
        aside = folder.path.with_name(f"fake.old-{number}")
        assert said == f"  moved the old result to {aside}\n  done in 0:00\n"
        assert read_manifest(str(aside), "fake").asked["steps"] == number
        assert not (aside / "_work").exists()
    assert read_manifest(str(folder.path), "fake").asked["steps"] == 3


def test_overwrite_keeps_a_result_of_the_same_settings(folder: Folder, stage: Fake) -> None:
    folder.run(stage)
    assert folder.run(stage, overwrite=True) == "  already done\n"


def test_unfinished_work_of_the_same_settings_is_resumed(folder: Folder, stage: Fake) -> None:
    leave_unfinished(folder, stage)
    assert plan_of(stage, folder.config).action == "resume"
    assert folder.run(stage) == "  resuming unfinished work\n  done in 0:00\n"


def test_unfinished_work_of_other_settings_is_refused(folder: Folder, stage: Fake) -> None:
    leave_unfinished(folder, stage)
    with pytest.raises(StageError) as caught:
        folder.run(asking(steps=2))
    assert str(caught.value) == (
        f"{folder.path} holds unfinished work made with other settings or inputs:\n    steps: 1 -> 2\n{TOLD}"
    )


def test_overwrite_moves_unfinished_work_aside_with_its_records(
    folder: Folder, stage: Fake
) -> None:
    leave_unfinished(folder, stage)
    said = folder.run(asking(steps=2), overwrite=True)
    aside = folder.path.with_name("fake.old-1")
    assert said == f"  moved the old result to {aside}\n  done in 0:00\n"
    (work,) = (aside / "_work").iterdir()
    assert sorted(path.name for path in work.iterdir()) == ["asked.json", "result"]


def test_a_raw_file_that_changed_at_equal_size_is_refused_by_name(
    folder: Folder, stage: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = replace(stage, text_sources=lambda config: ())
    folder.run(stage)
    monkeypatch.setattr(changed_inputs, "changed", lambda *_: ["a.txt"])
    with pytest.raises(StageError, match=r"    a.txt: its contents changed, but not its size"):
        folder.run(stage)


def test_a_damaged_manifest_is_refused_and_overwrite_moves_it_aside(
    folder: Folder, stage: Fake
) -> None:
    folder.run(stage)
    (folder.path / "manifest.json").write_text("{")
    with pytest.raises(ManifestError, match=r"manifest.json is damaged .* --overwrite"):
        folder.run(stage)
    plan = plan_of(stage, folder.config)
    assert plan.action == "refuse"
    assert re.match(r"refused: .*manifest.json is damaged", plan.text)
    assert plan_of(stage, folder.config, overwrite=True).action == "replace"
    folder.run(stage, overwrite=True)
    assert (folder.path.with_name("fake.old-1") / "manifest.json").read_text() == "{"
    assert folder.run(stage) == "  already done\n"


# The manifest is written last


@contextmanager
def failing_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail at the write after this many."""
    write, left = storage.write_bytes, iter(range(writes))

    def write_or_fail(path: str, data: bytes) -> None:
        if next(left, None) is None:
            raise OSError("disk full")
        write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "write_bytes", write_or_fail)
        patched.setattr(records, "write_bytes", write_or_fail)
        yield


def test_a_failure_at_any_write_leaves_no_manifest_and_the_next_run_writes_it(
    folder: Folder, stage: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for allowed in range(20):
        with failing_after(allowed, monkeypatch):
            try:
                folder.run(stage)
                break
            except OSError:
                assert not (folder.path / "manifest.json").exists()
                assert not folder.lock.exists()
    assert allowed == 5  # asked.json, data.bin, config.yaml, stats.json, manifest.json


def test_a_former_manifest_does_not_vouch_for_files_that_are_replaced(
    folder: Folder, stage: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that grows is readable and intact after a kill at any write."""
    stage = replace(stage, grows=lambda *_: True)
    folder.run(stage)
    longer = replace(stage, request=lambda _: {"steps": 2})
    for allowed in range(20):
        with failing_after(allowed, monkeypatch):
            try:
                folder.run(longer)
                break
            except OSError:
                manifest = read_manifest(str(folder.path), "fake")
                assert manifest.asked["steps"] == 1
                assert not check_files(str(folder.path), manifest)
    assert allowed > 4
    assert read_manifest(str(folder.path)).asked["steps"] == 2


def test_damaged_inputs_are_refused_and_overwrite_moves_them_aside(
    folder: Folder, stage: Fake
) -> None:
    stage = replace(stage, text_sources=lambda config: ())
    folder.run(stage)
    (folder.path / "inputs.jsonl").write_text("{")
    with pytest.raises(ManifestError, match=r"inputs.jsonl is .* `biloom fake --overwrite`"):
        folder.run(stage)
    folder.run(stage, overwrite=True)
    assert folder.run(stage) == "  already done\n"


def test_a_kill_between_manifest_and_cleanup_is_cleaned_up_by_the_next_run(
    folder: Folder, stage: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(work_folder, "remove_tree", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.run(stage)
    assert (folder.path / "_work").exists()
    assert folder.run(stage) == "  already done\n"
    assert not (folder.path / "_work").exists()


def test_temporary_files_of_a_killed_writer_are_removed(folder: Folder, stage: Fake) -> None:
    leave_unfinished(folder, stage)
    orphan = folder.path / f"{storage.TEMPORARY}elsewhere-1-data.bin"
    orphan.write_bytes(b"half")
    os.utime(orphan, (0, 0))
    left: list[bool] = []

    def look(place: StageFolder) -> None:
        left.append(orphan.exists())
        write_data(place)

    folder.run(replace(stage, work=look))
    assert left == [False], "a full disk has no room for both"


# One writer a folder


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def began(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]


def test_the_lock_of_a_running_process_is_respected(
    folder: Folder, stage: Fake, sleeper: "subprocess.Popen[bytes]"
) -> None:
    folder.put_lock(process=sleeper.pid, began=began(sleeper.pid))
    with pytest.raises(LockedError, match=f"is being written by process {sleeper.pid} "):
        folder.run(stage)
    assert folder.lock.exists()
    assert not stage.made


def test_overwrite_does_not_move_the_folder_of_a_running_process(
    folder: Folder, stage: Fake, sleeper: "subprocess.Popen[bytes]"
) -> None:
    leave_unfinished(folder, stage)
    folder.lock.parent.rename(folder.path / "aside")
    folder.put_lock(process=sleeper.pid, began=began(sleeper.pid))
    for work in (folder.path / "aside").iterdir():
        work.rename(folder.path / "_work" / work.name)
    with pytest.raises(LockedError, match=f"is being written by process {sleeper.pid}"):
        folder.run(asking(steps=2), overwrite=True)
    assert folder.lock.exists()


# Children of one process, so that they start at the same moment.
RACE = """\
import json, os, sys, time, traceback
from pathlib import Path
from pipeline.config.load import load_config
from pipeline.console import Console
from pipeline.lifecycle.lock import LockedError
from pipeline.lifecycle.running import run_stage
from pipeline.lifecycle.stage import Made, Stage, StageWork

def make(config, place, console):
    with open(log, "a") as file:
        file.write("begin\\n")
        file.flush()
        time.sleep(0.05)
        file.write("end\\n")
    return Made((), {})

stage = Stage("fake", 1, lambda config: {})
root = Path(sys.argv[1])
null = open(os.devnull, "w")
for round in range(15):
    output, log = root / str(round), root / f"{round}.log"
    work = output / "fake" / "_work"
    work.mkdir(parents=True)
    (work / "lock.json").write_text(sys.argv[2])
    config = load_config([], ["prepare.input=x", f"run.output={output}"])
    begin = time.time() + 0.05
    children = []
    for _ in range(6):
        child = os.fork()
        if not child:
            sys.stdout = null
            console = Console()
            time.sleep(max(0, begin - time.time()))
            try:
                run_stage(stage, lambda: StageWork(make), config, console)
                os._exit(0)
            except LockedError:
                os._exit(3)
            except BaseException:
                traceback.print_exc()
                os._exit(5)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps([log.read_text().split(), codes]))
"""


def test_only_one_of_several_processes_takes_over_a_stale_lock(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as gone:
        gone.kill()
    holder = json.dumps({"host": socket.gethostname(), "process": gone.pid, "began": "1"})
    run = [sys.executable, "-c", RACE, str(tmp_path), holder]
    answer = subprocess.run(run, capture_output=True, text=True, check=True)
    rounds = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [work for work, _ in rounds] == [["begin", "end"]] * 15
    # A late process may find the work done; no process fails in another way.
    assert {code for _, codes in rounds for code in codes} <= {0, 3}, answer.stderr


VICTIM = """\
import sys, time
from pathlib import Path
from pipeline.config.load import load_config
from pipeline.console import Console
from pipeline.lifecycle.running import run_stage
from pipeline.lifecycle.stage import Stage, StageWork

def make(config, place, console):
    print("working", flush=True)
    time.sleep(60)

run_stage(
    Stage("fake", 1, lambda config: {"steps": 1}),
    lambda: StageWork(make),
    load_config([], ["prepare.input=x", f"run.output={sys.argv[1]}"]),
    Console(),
)
"""


def test_a_running_stage_is_locked_and_can_be_resumed_after_a_kill(
    folder: Folder, stage: Fake
) -> None:
    run = [sys.executable, "-c", VICTIM, folder.config.run.output]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout
        while "working" not in victim.stdout.readline():
            pass
        with pytest.raises(LockedError, match=f"is being written by process {victim.pid}"):
            folder.run(stage)
        victim.send_signal(signal.SIGKILL)
    assert folder.run(stage) == (
        f"  took over the lock of process {victim.pid}, which has ended\n"
        "  resuming unfinished work\n  done in 0:00\n"
    )


# Loading


def test_a_missing_module_is_refused_with_its_extra(
    folder: Folder, stage: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "apache_beam" else find(name)
    )
    with pytest.raises(StageError) as caught:
        folder.run(replace(stage, needs={"json": "all", "apache_beam": "beam"}))
    assert str(caught.value) == (
        "`biloom fake` needs apache_beam, which is not installed; pip install 'biloom[beam]'"
    )
    assert not folder.path.exists()


def test_beam_and_torch_are_loaded_only_if_there_is_work(
    folder: Folder, stage: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_work(self: Fake) -> StageWork:
        raise AssertionError("loaded")

    folder.run(stage)
    monkeypatch.setattr(Fake, "load_work", load_work)
    assert folder.run(stage) == "  already done\n"
    with pytest.raises(StageError, match="holds a result made with other settings"):
        folder.run(asking(steps=2))
    with pytest.raises(StageError, match="needs nothing_like_it, which is not installed"):
        folder.run(replace(asking(steps=2), needs={"nothing_like_it": "all"}), overwrite=True)
