"""What is shown: as given on a terminal and in a file, and never steered by what is shown."""

import re
import unicodedata
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console as RichConsole

from pipeline import console as console_module
from pipeline.console import Console, clock, count

MARKUP = "a [bold]b[/bold] [/] [link=x] :smile: \\"
SCRIPTS = ["漢字と仮名", "שלום עולם", "किताब", "👩‍👩‍👧 ok", "٣ كتب"]


def shown(terminal: bool, width: int = 200) -> tuple[Console, StringIO]:
    printed = StringIO()
    rich = RichConsole(
        file=printed, force_terminal=terminal, width=width, highlight=False, color_system=None
    )
    return Console(rich), printed


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("text", [MARKUP, *SCRIPTS])
def test_text_is_shown_as_it_is_and_never_read_as_markup(terminal: bool, text: str) -> None:
    console, printed = shown(terminal)
    console.stage("prepare", text)
    console.line(text)
    console.warn(text)
    console.table(text, ["name", "[b]"], [[text, "1"]])
    with console.bar(text, 10) as bar:
        bar.update(5, text)
    console.passage("", text, "")
    assert printed.getvalue().count(text) >= 6
    assert "[b]" in printed.getvalue()


@settings(deadline=None)
@given(st.text())
def test_a_plain_line_holds_no_control_character(text: str) -> None:
    console, printed = shown(terminal=False, width=10_000)
    console.line(text)
    console.stage("check", text)
    console.table(text, [text], [[text]])
    console.passage(text, text, text)
    controls = {c for c in printed.getvalue() if unicodedata.category(c) in ("Cc", "Cs")}
    assert controls <= {"\n"}


def test_a_plain_line_is_not_wrapped_and_has_no_style(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    console = Console()
    console.warn("word " * 100)
    console.stage("train", "/a/" * 100)
    assert not console.is_terminal
    assert capsys.readouterr().out == "  " + "word " * 100 + "\ntrain  " + "/a/" * 100 + "\n"


@pytest.mark.parametrize("text", ["a few words " * 9, "/a/path/that/has/no/space" * 5])
def test_a_long_line_is_wrapped_below_its_stage_on_a_terminal(text: str) -> None:
    for tell in (Console.line, Console.warn):
        console, printed = shown(terminal=True, width=40)
        tell(console, text)
        first, *others = printed.getvalue().splitlines()
        assert first.startswith("  " + text[:9])
        assert others
        assert all(line.startswith("    ") and len(line) <= 40 for line in others)
        whole = "".join(line.strip() for line in (first, *others))
        assert whole.replace(" ", "") == text.replace(" ", "")


def test_a_plain_bar_prints_a_line_in_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now)
    console, printed = shown(terminal=False)
    with console.bar("prepare", 1000) as bar:
        for second in range(36):
            now = 100.0 + second
            bar.update(second * 10, "12k tokens")
        bar.update(1000, "all")
    assert printed.getvalue() == (
        "  prepare:  10%  12k tokens  1:30 left\n"
        "  prepare:  20%  12k tokens  1:20 left\n"
        "  prepare:  30%  12k tokens  1:10 left\n"
    )


def test_what_a_former_run_did_says_nothing_of_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now)
    console, printed = shown(terminal=False)
    with console.bar("prepare", 1000) as bar:
        bar.update(800)
        now = 10.0
        bar.update(810, "on")
    assert printed.getvalue() == "  prepare:  81%  on  3:10 left\n"


def test_what_goes_on_after_the_last_byte_is_reported_as_it_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console_module, "PLAIN_SECONDS", 0.0)
    console, printed = shown(terminal=False)
    with console.bar("prepare", 10) as bar:
        for note in ("deduplicating", "deduplicating", "last pass: 1 of 2 units"):
            bar.update(10, note)
    assert printed.getvalue() == "  prepare: deduplicating\n  prepare: last pass: 1 of 2 units\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_of_nothing_is_no_mistake(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "PLAIN_SECONDS", 0.0)
    console, _ = shown(terminal)
    with console.bar("embed", 0) as bar:
        bar.update(0, "nothing")
        bar.update(-1, "less")


def test_a_bar_that_has_not_moved_tells_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "PLAIN_SECONDS", 0.0)
    console, printed = shown(terminal=False)
    with console.bar("prepare", 10) as bar:
        bar.update(0, "note")
    assert printed.getvalue() == "  prepare:   0%  note\n"


def test_a_table_in_a_file_is_a_line_a_row() -> None:
    console, printed = shown(terminal=False)
    console.table("corpus", ["split", "tokens"], [["train", "12"], ["valid", "3"]])
    assert printed.getvalue() == ("  corpus: split | tokens\n    train | 12\n    valid | 3\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_table_holds_no_control_character(terminal: bool) -> None:
    console, printed = shown(terminal=terminal)
    console.table("t\x1b[2J", ["n\x1b]0;x\x07", "\u202eb"], [["\x9b1m", "\x08"]])
    escapes = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())  # of styles
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", escapes)


def test_columns_of_numbers_stand_to_the_right_and_text_to_the_left() -> None:
    console, printed = shown(terminal=True, width=60)
    rows = [["1 to 9", "12", "-", "done"], ["valid", "3,000", "1.5kB", "to be made"]]
    console.table("stages", ["name", "tokens", "size", "state"], rows)
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    assert lines[-3:-1] == [
        "  1 to 9      12      -  done",
        "  valid    3,000  1.5kB  to be made",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_bar_keeps_its_name_share_and_time_on_a_narrow_terminal(width: int) -> None:
    console, printed = shown(terminal=True, width=width)
    note = "12,345 tokens/s  perplexity 1,005.6 (held out 1,234.5)"
    with console.bar("train", 1000) as bar:
        bar.update(120, note)
        bar._progress.refresh()  # type: ignore[attr-defined]
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.getvalue())
    lines = [line for line in plain.splitlines() if "12%" in line and "12,345" in line]
    assert lines
    assert all(line.startswith("  train ") and line.endswith(" --:--") for line in lines)
    assert all((note in line) == (width > 100) for line in lines)


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_passage_on_a_narrow_terminal_keeps_its_word_on_one_line(text: str) -> None:
    console, printed = shown(terminal=True, width=40)
    console.passage(text * 20, text, text * 20)
    console.passage(text * 20, text, text * 20, " 0.91  ")
    first, second = printed.getvalue().splitlines()
    assert text in first
    assert text in second
    assert second.startswith("     0.91  …")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3661, "1:01:01")]
)
def test_a_length_of_time_is_minutes_and_seconds(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (8123, "8,123"),
        (12_345, "12.3k"),
        (4_560_000, "4.56M"),
        (12_000_000_000, "12G"),
        (999_400, "999k"),
        (999_999, "1M"),
        (3_400_000_000_000, "3.4T"),
        (1_234e12, "1,234T"),
    ],
)
def test_a_count_is_read_at_a_glance(number: float, text: str) -> None:
    assert count(number) == text


def test_a_bar_that_goes_on_knows_nothing_of_the_former_runs_speed() -> None:
    console, _ = shown(terminal=True)
    with console.bar("train", 1000) as bar:
        bar.update(900)
        task = bar._progress.tasks[0]  # type: ignore[attr-defined]

        assert task.completed == 900
        assert task.speed is None, "nothing was done yet"
        assert task.time_remaining is None
