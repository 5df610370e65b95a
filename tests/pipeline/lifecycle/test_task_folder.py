"""A task is done, resumed or refused, and so is a result without a work folder."""

import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from pipeline.console import Console
from pipeline.lifecycle import task_folder as module
from pipeline.lifecycle.lock import LockedError
from pipeline.lifecycle.stage import StageError
from pipeline.lifecycle.task_folder import make_result, make_task, write_result
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import Manifest, record_of, write_manifest

# Of version 0.1 on this host: a process that has ended.
ENDED = json.dumps({"host": socket.gethostname(), "process": 1, "began": "1"})


@dataclass
class Out:
    """A folder of a task with one file, and what was printed."""

    folder: Path
    made: list[str] = field(default_factory=list)
    printed: StringIO = field(default_factory=StringIO)

    def make(self, seed: int = 1, dies: str = "", overwrite: bool = False, **more: str) -> Manifest:
        asked: dict[str, Any] = {"stage": "classify train", "seed": seed} | more

        def work(folder: str) -> Manifest:
            self.made.append(folder)
            if dies == "before":
                raise KeyboardInterrupt
            if dies == "of a mistake":
                raise UserError("there is no such column")
            data = f"made with {seed}".encode()
            storage.write_bytes(str(self.folder / "head"), data)
            if dies == "after":
                raise KeyboardInterrupt
            files = (record_of("head", data),)
            made = Manifest("classify train", 1, "1.0", "", "", asked, files, {})
            write_manifest(str(self.folder), made)
            if dies == "at the end":
                raise KeyboardInterrupt
            return made

        console = Console(RichConsole(file=self.printed, width=1000, highlight=False))
        return make_task(str(self.folder), asked, work, console, overwrite)

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def out(tmp_path: Path) -> Out:
    return Out(tmp_path / "task")


def test_after_a_mistake_the_corrected_command_is_not_refused(out: Out) -> None:
    with pytest.raises(UserError, match="no such column"):
        out.make(seed=1, dies="of a mistake")
    out.make(seed=2)
    assert (out.folder / "head").read_text() == "made with 2"


def test_a_finished_task_is_not_made_again(out: Out) -> None:
    first = out.make()
    assert out.make() == first
    assert len(out.made) == 1
    assert out.names == {"head", "manifest.json"}
    assert f"already done: {out.folder}" in out.printed.getvalue()


@pytest.mark.parametrize("when", ["before", "after", "at the end"])
def test_the_same_command_ends_what_was_killed(out: Out, when: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        out.make(dies=when)
    out.make()
    assert out.names == {"head", "manifest.json"}
    assert (out.folder / "head").read_bytes() == b"made with 1"
    assert len({*out.made}) == 1


@pytest.mark.parametrize(
    ("begin", "what"),
    [(lambda out: out.make(), "a result"), (lambda out: _die(out), "unfinished work")],
)
def test_another_request_is_refused_unless_the_result_is_moved_aside(
    out: Out, begin: Callable[[Out], object], what: str
) -> None:
    begin(out)
    message = (
        f"holds {what} made with other settings or inputs:\n    seed: 1 -> 2\n  add --overwrite"
    )
    with pytest.raises(StageError, match=re.escape(message)):
        out.make(seed=2)
    out.make(seed=2, overwrite=True)
    assert (out.folder / "head").read_bytes() == b"made with 2"
    assert out.names == {"head", "manifest.json"}
    assert f"moved the old result to {out.folder}.old-1" in out.printed.getvalue()


def _die(out: Out) -> None:
    with pytest.raises(KeyboardInterrupt):
        out.make(dies="after")


def test_a_folder_of_something_else_is_refused(out: Out) -> None:
    out.folder.mkdir()
    (out.folder / "thesis.tex").write_text("important")
    with pytest.raises(StageError, match=r"holds thesis\.tex, which is not of an unfinished task"):
        out.make()
    assert out.names == {"thesis.tex"}


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("manifest.json", "{}", "manifest.json"),
        ("head", "made with 3", "head: hash is "),
        ("head", None, "head: missing"),
    ],
)
def test_a_damaged_task_is_moved_aside_only_if_asked(
    out: Out, name: str, content: str | None, what: str
) -> None:
    out.make()
    (out.folder / name).unlink()
    if content is not None:
        (out.folder / name).write_text(content)
    message = (
        rf"is damaged \({what}.*\); add --overwrite to move it aside and make it again, or name"
    )
    with pytest.raises(StageError, match=message):
        out.make()
    out.make(overwrite=True)
    assert (out.folder / "head").read_bytes() == b"made with 1"
    assert Path(f"{out.folder}.old-1").exists()


def test_other_content_is_told_in_words(out: Out) -> None:
    out.make(train="a" * 32)
    with pytest.raises(StageError, match=r"train: other content \(aaaaaaaa, now bbbbbbbb\)\n"):
        out.make(train="b" * 32)


def test_a_command_that_was_stopped_before_anything_was_made_keeps_no_other_away(out: Out) -> None:
    with pytest.raises(KeyboardInterrupt):
        out.make(dies="before")
    out.make(seed=2)
    assert (out.folder / "head").read_bytes() == b"made with 2"
    assert out.names == {"head", "manifest.json"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_result_of_another_command_is_never_replaced(out: Out, overwrite: bool) -> None:
    out.make()
    message = "holds a finished 'classify train', which this command does not replace; name another"
    with pytest.raises(StageError, match=message):
        out.make(overwrite=overwrite, stage="tag train")
    assert (out.folder / "head").exists()


@dataclass
class Result:
    """A folder that a command writes without a work folder."""

    folder: Path
    made: int = 0
    printed: StringIO = field(default_factory=StringIO)

    def write(self) -> None:
        self.made += 1
        storage.write_bytes(str(self.folder / "model"), b"weights")
        record = record_of("model", b"weights")
        write_result(str(self.folder), {"seed": 1}, [record], {}, b"card")

    def make(self, write: Callable[[], None] | None = None) -> bool:
        console = Console(RichConsole(file=self.printed, width=1000, highlight=False))
        names = ("model", "README.md")
        return make_result(
            str(self.folder), {"seed": 1}, names, "a model", write or self.write, console
        )

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


MADE = {"model", "README.md", "manifest.json"}


@pytest.fixture
def result(tmp_path: Path) -> Result:
    return Result(tmp_path / "model")


def test_a_made_result_is_not_made_again_and_has_no_lock_file(result: Result) -> None:
    assert result.make()
    assert result.names == MADE
    # A process that was killed at the end leaves its lock file.
    (result.folder / "_work").mkdir()
    (result.folder / "_work" / "lock.json").write_text(ENDED)
    assert not result.make()
    assert (result.made, result.names) == (1, MADE)
    assert f"{result.folder}: already done" in result.printed.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("manifest.json", "{}", "manifest.json"),
        ("model", "WEIGHTS", "model: hash is "),
        ("model", "", "model: size is 0 bytes, was 7"),
        ("README.md", None, "README.md: missing"),
    ],
)
def test_a_damaged_result_is_refused(
    name: str, content: str | None, what: str, result: Result
) -> None:
    result.make()
    (result.folder / name).unlink()
    if content is not None:
        (result.folder / name).write_text(content)
    message = (
        rf"{result.folder} is damaged \({what}.*\); remove this folder and run the command again, "
        "or name another folder$"
    )
    with pytest.raises(StageError, match=message):
        result.make()
    assert result.made == 1
    assert "already done" not in result.printed.getvalue()


def test_a_result_of_another_request_or_other_files_are_left_alone(result: Result) -> None:
    result.folder.mkdir()
    (result.folder / "notes").write_text("mine")
    with pytest.raises(StageError, match="holds notes, which is not a file of a model; name"):
        result.make()
    (result.folder / "notes").unlink()
    write_result(str(result.folder), {"seed": 2}, [], {})
    with pytest.raises(StageError, match="holds another finished result; name another folder"):
        result.make()
    assert (result.made, result.names) == (0, {"manifest.json"})


def test_two_commands_do_not_write_the_same_folder(result: Result) -> None:
    def other() -> None:
        with pytest.raises(LockedError, match=r"is being written by .*; wait for it, or name"):
            result.make()
        result.write()

    assert result.make(other)
    assert (result.made, result.names) == (1, MADE)


def test_a_result_that_another_command_made_meanwhile_is_kept(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = module.lock

    def late(*args: Any) -> Any:
        result.write()
        return lock(*args)

    monkeypatch.setattr(module, "lock", late)
    assert not result.make()
    assert (result.made, result.names) == (1, MADE)


def test_a_command_that_fails_leaves_no_empty_folder_and_keeps_what_it_wrote(
    result: Result,
) -> None:
    def fail() -> None:
        raise UserError("there is no text")

    def write_some_and_fail() -> None:
        storage.write_bytes(str(result.folder / "model"), b"half")
        fail()

    with pytest.raises(UserError, match="no text"):
        result.make(fail)
    assert not result.folder.exists()
    with pytest.raises(UserError, match="no text"):
        result.make(write_some_and_fail)
    assert result.names == {"model"}
    assert result.make()
    assert result.names == MADE
