"""Long steps of the driver are shown by the bars of the console, and short ones are not."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from pipeline import console as console_module
from pipeline import phases, progress
from pipeline.cli import main
from pipeline.console import Console
from pipeline.phases import Phase, phase
from preprocess.files import storage

Capture = pytest.CaptureFixture[str]


class Printed(StringIO):
    """What is printed, also by another thread."""

    def wait(self, pattern: str) -> None:
        end = time.monotonic() + 100
        while not re.search(pattern, self.getvalue()):
            assert time.monotonic() < end, self.getvalue()
            time.sleep(0.01)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Printed]:
    """Return a function that lets a terminal or a file show the phases at once, and returns what is shown."""
    monkeypatch.setattr(phases, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(phases, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(console_module, "PLAIN_SECONDS", 0.0)

    def show(terminal: bool) -> Printed:
        printed = Printed()
        rich = RichConsole(file=printed, force_terminal=terminal, width=120, color_system=None)
        monkeypatch.setattr(phases, "shown_on", lambda: Console(rich))
        return printed

    return show


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[tuple[int, int]]]]:
    """The phases that ran, by name: how many items each has counted, and of how many."""
    found: dict[str, list[tuple[int, int]]] = {}

    def watch(
        console: Console, name: str, total: int, present: Phase, ended: threading.Event
    ) -> None:
        ended.wait()
        found.setdefault(name, []).append((present._done, total))

    monkeypatch.setattr(phases, "_watch", watch)
    yield found
    assert not phases._running


def watchers() -> int:
    return sum(thread.name == "biloom-phase" for thread in threading.enumerate())


def test_a_phase_without_a_total_shows_its_count_and_its_time(
    shown: Callable[[bool], Printed],
) -> None:
    printed = shown(False)
    with phase("listing inputs", "files") as found:
        printed.wait("listing inputs: 0:00\n")
        for _ in range(1234):
            found.add()
        printed.wait(r"  listing inputs: 1,234 files  0:0\d\n")


def test_a_phase_with_a_total_shows_its_share(shown: Callable[[bool], Printed]) -> None:
    printed = shown(False)
    with phase("checking files", "files", 4) as checked:
        printed.wait("checking files:   0%")
        checked.add(2)
        printed.wait(r"checking files:  50%  2 of 4 files  0:00 left\n")


def test_a_bar_on_a_terminal_is_removed_at_the_end(shown: Callable[[bool], Printed]) -> None:
    printed = shown(True)
    with phase("listing inputs", "files") as found:
        found.add(7)
        printed.wait(r"listing inputs .*7 files  0:00")
    assert printed.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_short_phase_shows_nothing(
    terminal: bool, shown: Callable[[bool], Printed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "QUIET_SECONDS", 100.0)
    printed = shown(terminal)
    with phase("listing inputs", "files") as found:
        assert watchers() == 1
        found.add()
    assert printed.getvalue() == ""
    assert watchers() == 0


def test_nothing_is_shown_before_a_stage_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "_shown_on", None)
    with phase("listing inputs"):
        assert watchers() == 0
    further = Console(RichConsole(file=StringIO()))
    further.stage("train", "/run/train")
    assert console_module.shown_on() is None, "further processes of a training show nothing"
    console = Console()
    console.stage("train", "/run/train")
    assert console_module.shown_on() is console


def test_a_phase_inside_another_one_is_not_shown(ran: dict[str, object]) -> None:
    Console().stage("prepare", "/run/prepare")
    with phase("outer"), phase("inner") as inner:
        inner.add()
    with phase("next"):
        pass
    assert [*ran] == ["outer", "next"]


def test_the_figures_of_the_work_before_are_kept(shown: Callable[[bool], Printed]) -> None:
    printed, console = shown(False), Console()
    console.stage("prepare", "/run/prepare")
    with console.bar("prepare", 40) as bar:
        bar.update(40, "9 tokens", {"tokens": 9})
    before = {name: getattr(progress._now, name) for name in progress._OF_A_PART}
    with phases.figures_kept(), console.bar("moving files", 3) as bar:
        bar.update(1)
        assert (progress._now.work, progress._now.planned) == ("moving files", 3)
    assert before["figures"] == {"tokens": 9}
    assert {name: getattr(progress._now, name) for name in before} == before
    with phase("moving files", "files"):
        printed.wait("moving files")
    assert progress._now.work == "prepare"


def test_output_that_nobody_reads_fails_no_phase(
    shown: Callable[[bool], Printed], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed, wrote = shown(False), threading.Event()

    def fail(text: str) -> int:
        wrote.set()
        raise OSError("closed")

    monkeypatch.setattr(printed, "write", fail)
    with phase("listing inputs", "files"):
        assert wrote.wait(100)


def test_an_error_ends_the_bar_and_is_raised(shown: Callable[[bool], Printed]) -> None:
    printed = shown(True)

    def fail() -> None:
        with phase("listing inputs"):
            printed.wait("listing inputs")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert watchers() == 0
    assert not phases._running


def test_a_phase_is_an_object_in_a_log_of_objects(
    shown: Callable[[bool], Printed], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    shown(False)
    monkeypatch.setenv("BILOOM_LOG", "json")
    console = Console()
    monkeypatch.setattr(phases, "shown_on", lambda: console)
    end, said = time.monotonic() + 100, ""
    with phase("checking files", "files", 4) as checked:
        checked.add()
        while "1 of 4 files" not in said:
            assert time.monotonic() < end
            said += capsys.readouterr().err
    line = json.loads(said.splitlines()[-1])
    assert line["message"].startswith("checking files:  25%  1 of 4 files")
    assert (line["level"], line["done"], line["total"]) == ("info", 1, 4)


def words(raw: Path, output: str, *more: str) -> list[str]:
    mode = "runner.options.mode=in_memory"
    return [f"prepare.input={raw}", f"run.output={output}", "tokenizer.kind=char", mode, *more]


@pytest.mark.parametrize("place", ["disk", "store"])
def test_the_long_steps_of_a_stage_are_phases(
    place: str, tmp_path: Path, ran: dict[str, list[tuple[int, int]]], capsys: Capture
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(3):
        (raw / f"{number}.txt").write_text(f"a text with the number {number}\n" * 9)
    (raw / "x.png").write_bytes(b"")
    output = str(tmp_path / "run") if place == "disk" else f"memory://phases-{tmp_path.name}"
    assert main(["tokenizer", *words(raw, output)]) == 0
    ran.clear()
    assert main(["prepare", *words(raw, output)]) == 0
    files = len(storage.list_names(f"{output}/prepare"))
    assert ran["listing inputs"] == [(4, 0)] * len(ran["listing inputs"])
    # Those of the tokenizer stage, by prepare.
    assert (3, 0) in ran["comparing inputs"]
    assert ran["collecting records"] == [(1, 1)]
    # Without the config, the figures and the manifest.
    assert ran["moving files"][-1] == (files - 3, files - 3)
    assert ran["writing the manifest"] == [(0, 0)]
    assert len(ran["removing files"]) == 1
    ran.clear()
    assert main(["prepare", *words(raw, output, "prepare.deduplicate=false"), "--overwrite"]) == 0
    # On a store, the lock stays.
    aside = (0 if place == "disk" else files, 0)
    assert ran["moving files"][0] == aside
    assert len(ran["removing files"]) == 2
    ran.clear()
    assert main(["prepare", *words(raw, output, "prepare.deduplicate=false")]) == 0
    assert ran == {"listing inputs": [(4, 0), (4, 0)], "comparing inputs": [(3, 0)]}
    capsys.readouterr()
    storage.remove_tree(output)


def test_a_word_count_has_phases_after_its_job(
    tmp_path: Path, ran: dict[str, list[tuple[int, int]]], capsys: Capture
) -> None:
    (tmp_path / "a.txt").write_text("a text\n" * 50)
    overrides = words(tmp_path / "a.txt", f"{tmp_path}/run", "tokenizer.kind=word")
    assert main(["tokenizer", *(word for word in overrides if word != "tokenizer.kind=char")]) == 0
    assert {"collecting records", "writing the vocabulary"} <= ran.keys()
    capsys.readouterr()


def test_no_phase_is_shown_by_a_fast_command(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.txt").write_text("a text\n" * 50)
    assert main(["tokenizer", *words(tmp_path / "a.txt", f"{tmp_path}/run")]) == 0
    assert "listing" not in capsys.readouterr().out
