"""Output for people: bars and tables on a terminal, plain lines in a file or a pipe.

With BILOOM_LOG=json, it is for programs: objects on standard error (`pipeline.log`).
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from pipeline.log import Level, is_json, write_json
from pipeline.progress import Figures, Meter, begin_stage
from preprocess.errors import one_line, printable

BAR_WIDTH = 30
"""Largest width of a bar, in columns."""
REST_WIDTH = 20
"""Columns of a bar's line that its percentage, its remaining time and its spaces take."""
PLAIN_SECONDS = 10.0
"""Seconds between two lines of a bar if the output is not a terminal."""


class Bar(Protocol):
    """A progress bar."""

    def update(self, done: float, note: str = "", figures: Figures | None = None) -> None:
        """Show progress.

        Args:
            done: amount done so far, in the units of the total.
            note: text shown beside the bar, for example tokens/s.
            figures: the same figures for logs and metrics (`pipeline.prometheus.FIGURES`).
        """


class _PlainBar:
    def __init__(self, console: "Console", name: str, total: float) -> None:
        self._console, self._name, self._total = console, name, total
        self._shown_at = time.monotonic()
        self._first: tuple[float, float] | None = None
        self._last = ""

    def update(self, done: float, note: str = "", figures: Figures | None = None) -> None:
        now = time.monotonic()
        # Work of an earlier run does not count for the speed of this one.
        began, first = self._first = self._first or (now, done)
        if now - self._shown_at < PLAIN_SECONDS:
            return
        line = f"{self._name}: {note}"
        speed = (done - first) / (now - began) if now > began else 0.0
        if self._total and done < self._total:
            share = f"{done / self._total:4.0%}"
            rest = f"  {clock((self._total - done) / speed)} left" if speed > 0 else ""
            line = f"{self._name}: {share}  {note}{rest}"
        elif note == self._last:
            return
        self._shown_at, self._last = now, note
        fields = {"done": done, "total": self._total, "rate": round(speed, 3)}
        self._console.progress(line, {**fields, **(figures or {})})


class _TerminalBar:
    def __init__(self, progress: Progress, name: str, total: float) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=total or None, note="")
        self._begun = False

    def update(self, done: float, note: str = "", figures: Figures | None = None) -> None:
        if not self._begun:
            # Work of an earlier run does not count for the speed of this one.
            self._progress.reset(self._task, completed=int(done))
            self._begun = True
        self._progress.update(self._task, completed=done, note=note)


class _MeteredBar:
    def __init__(self, bar: Bar, meter: Meter) -> None:
        self._bar, self._meter = bar, meter

    def update(self, done: float, note: str = "", figures: Figures | None = None) -> None:
        self._meter.update(done, note, figures)
        self._bar.update(done, note, figures)


class _Output(RichConsole):
    def on_broken_pipe(self) -> None:
        # Rich would exit with 1, which means "damaged" here.
        raise BrokenPipeError


class Console:
    """Output of results and progress to standard output.

    With BILOOM_LOG=json, output to standard output and standard error becomes objects on standard error.

    Args:
        rich: the Rich console to write to; the default writes to standard output.
    """

    def __init__(self, rich: RichConsole | None = None) -> None:
        self._rich = rich or _Output(highlight=False, soft_wrap=not sys.stdout.isatty())
        # Other consoles are those of further processes of a training, which show nothing.
        self._is_main = rich is None or rich.stderr
        # Kept, because a Beam job replaces it while it runs.
        self._log: TextIO | None = sys.stderr if self._is_main and is_json() else None

    @property
    def is_terminal(self) -> bool:
        return self._rich.is_terminal and self._log is None

    def stage(self, name: str, folder: str) -> None:
        """Print the heading of a stage: its name and its folder."""
        if self._is_main:
            global _shown_on
            _shown_on = self
            begin_stage(name, folder)
        if not self._logged("info", name, folder=folder):
            self._rich.print(Text.assemble((name, "bold cyan"), "  ", (one_line(folder), "dim")))

    def line(self, text: str) -> None:
        """Print an indented line below the heading."""
        if not self._logged("info", text):
            self._indented(text)

    def warn(self, text: str) -> None:
        """Print an indented line that needs attention, in yellow."""
        if not self._logged("warning", text):
            self._indented(text, "yellow")

    def progress(self, text: str, fields: Figures) -> None:
        """Print a line of a bar; an object has ``fields``, too."""
        if not self._logged("info", text, **fields):
            self._indented(text)

    def _logged(self, level: Level, text: str, **fields: Any) -> bool:
        """Write an object if messages are objects; return whether it was written."""
        if self._log:
            write_json(self._log, level, text, fields)
        return self._log is not None

    def _indented(self, text: str, style: str = "") -> None:
        # Text, unlike a string, is never read as markup: a file may be called "[bold]".
        shown = Text(printable(text), style)
        if self.is_terminal:
            # Lines after the first are indented further, to show that they belong to it.
            lines = shown.wrap(self._rich, max(self._rich.width - 4, 1))
            for number, line in enumerate(lines):
                self._rich.print(Text("    " if number else "  ") + line, no_wrap=True)
        else:
            self._rich.print(Text("  ") + shown)

    def passage(self, before: str, word: str, after: str, lead: str = "") -> None:
        """Print a word in its context; a terminal shows as much context as fits on one line.

        Args:
            before: the text before the word.
            word: the word.
            after: the text after it.
            lead: printed first on the line, such as a number.
        """
        if not self.is_terminal:
            self.line(f"  {lead}{before}[{word}]{after}")
            return
        before, word, after = printable(before), printable(word), printable(after)
        room = (self._rich.width - 4 - cell_len(lead) - cell_len(word)) // 2
        while before and cell_len(before) > room:
            before = "…" + before[2:]
        text = Text.assemble(f"    {lead}", (before, "dim"), (word, "bold"), (after, "dim"))
        self._rich.print(text, no_wrap=True, overflow="ellipsis")

    def coloured(self, name: str, text: Text) -> None:
        """Print a name, and below it a text with its own styles, which must be printable."""
        if self._logged("info", f"{name}: {text.plain}"):
            return
        self._rich.print(Text(f"  {printable(name)}", "dim"))
        for line in text.wrap(self._rich, max(self._rich.width - 4, 1)):
            self._rich.print(Text("    ") + line, no_wrap=True)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; columns of numbers, except the first column, are aligned to the right.

        Args:
            title: printed above the table.
            header: names of the columns.
            rows: cells, as many in each row as in the header.
        """
        if self._logged("info", title, rows=[dict(zip(header, row, strict=True)) for row in rows]):
            return
        if not self.is_terminal:
            self.line(f"{title}: " + " | ".join(header))
            for row in rows:
                self.line("  " + " | ".join(row))
            return
        table = Table(
            title=Text(printable(title)),
            title_justify="left",
            header_style="dim",
            box=SIMPLE_HEAD,
            collapse_padding=True,
        )
        for number, name in enumerate(header):
            numbers = sum(_is_number(row[number]) for row in rows)
            is_right = number > 0 and 2 * numbers >= len(rows)
            table.add_column(
                Text(printable(name)), justify="right" if is_right else "left", overflow="fold"
            )
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self._rich.print(table)

    @contextmanager
    def bar(self, name: str, total: float) -> Iterator[Bar]:
        """Show a progress bar while the block runs; ``total`` is the amount of work, 0 if unknown."""
        with self._bar(name, total) as bar:
            yield _MeteredBar(bar, Meter(name, total)) if self._is_main else bar

    @contextmanager
    def _bar(self, name: str, total: float) -> Iterator[Bar]:
        if not self.is_terminal:
            yield _PlainBar(self, name, total)
            return
        # On a narrow terminal the bar is shortened first, then the note.
        width = max(4, min(BAR_WIDTH, self._rich.width - 82))
        room = max(1, self._rich.width - width - cell_len(name) - REST_WIDTH)
        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=width),
            TaskProgressColumn(),
            TextColumn(
                "{task.fields[note]}",
                markup=False,
                table_column=Column(max_width=room, no_wrap=True, overflow="ellipsis"),
            ),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=self._rich, transient=True) as progress:
            yield _TerminalBar(progress, name, total)


_shown_on: Console | None = None


def shown_on() -> Console | None:
    """Return the console that shows the stage of this process; None before the first stage."""
    return _shown_on


def _is_number(cell: str) -> bool:
    """Return True if a cell is a number, with or without a unit, or stands for a missing one."""
    return cell in ("", "-") or cell.lstrip("-+~<>")[:1].isdigit()


def clock(seconds: float) -> str:
    """Format a duration in seconds as minutes:seconds, or from one hour on as hours:minutes:seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def count(number: float) -> str:
    """Format a number for reading at a glance: 8,123, 12.3k or 4.56M."""
    if number < 10_000:
        return f"{number:,.0f}"
    for divisor, letter in ((1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")):
        # A number that rounds to 1000 is 1 of the next unit.
        if number / divisor < 999.5:
            return f"{number / divisor:.3g}{letter}"
    return f"{number / 1e12:,.0f}T"
