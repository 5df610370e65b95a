"""What a person sees: bars and tables on a terminal, plain lines in a file."""

import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

BAR_WIDTH = 30
REST_WIDTH = 20
"""Columns of a bar's line besides its name, the bar and the note: share, time left, spaces."""
PLAIN_SECONDS = 10.0
"""Seconds between two lines of a bar where no terminal draws it."""


class Bar(Protocol):
    """A running measure of work."""

    def update(self, done: float, note: str = "") -> None:
        """``done`` of the total is done; ``note`` says more, as tokens/s."""


class _PlainBar:
    def __init__(self, console: "Console", name: str, total: float) -> None:
        self._console, self._name, self._total = console, name, total
        self._told = time.monotonic()
        self._first: tuple[float, float] | None = None
        self._last = ""

    def update(self, done: float, note: str = "") -> None:
        now = time.monotonic()
        # What a former run did says nothing of this one's speed.
        began, first = self._first = self._first or (now, done)
        if now - self._told < PLAIN_SECONDS:
            return
        line = f"{self._name}: {note}"
        if self._total and done < self._total:
            share = f"{done / self._total:4.0%}"
            speed = (done - first) / (now - began) if now > began else 0.0
            rest = f"  {clock((self._total - done) / speed)} left" if speed > 0 else ""
            line = f"{self._name}: {share}  {note}{rest}"
        elif note == self._last:
            return
        self._told, self._last = now, note
        self._console.line(line)


class _TerminalBar:
    def __init__(self, progress: Progress, name: str, total: float) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=total, note="")
        self._begun = False

    def update(self, done: float, note: str = "") -> None:
        if not self._begun:
            # What a former run did says nothing of this one's speed.
            self._progress.reset(self._task, completed=int(done))
            self._begun = True
        self._progress.update(self._task, completed=done, note=note)


class _Output(RichConsole):
    def on_broken_pipe(self) -> None:
        # Rich would exit with 1, which here means "found damaged".
        raise BrokenPipeError


class Console:
    """Standard output for results, standard error for nothing but errors."""

    def __init__(self, rich: RichConsole | None = None) -> None:
        self._rich = rich or _Output(highlight=False, soft_wrap=not sys.stdout.isatty())

    @property
    def is_terminal(self) -> bool:
        return self._rich.is_terminal

    def stage(self, name: str, folder: str) -> None:
        """A stage begins."""
        self._rich.print(Text.assemble((name, "bold cyan"), "  ", (printable(folder), "dim")))

    def line(self, text: str) -> None:
        """One fact, below its stage."""
        self._indented(text)

    def warn(self, text: str) -> None:
        """One fact that asks for attention."""
        self._indented(text, "yellow")

    def _indented(self, text: str, style: str = "") -> None:
        # Text, unlike a string, is never read as markup: a file may be called "[bold]".
        shown = Text(printable(text), style)
        if self.is_terminal:
            # Each of the lines of a wrapped text, the first two columns less than the others.
            lines = shown.wrap(self._rich, max(self._rich.width - 4, 1))
            for number, line in enumerate(lines):
                self._rich.print(Text("    " if number else "  ") + line, no_wrap=True)
        else:
            self._rich.print(Text("  ") + shown)

    def passage(self, before: str, word: str, after: str) -> None:
        """A word in its text; a terminal shows what fits on one line around it."""
        if not self.is_terminal:
            self.line(f"  {before}[{word}]{after}")
            return
        before, word, after = printable(before), printable(word), printable(after)
        room = (self._rich.width - 4 - cell_len(word)) // 2
        while before and cell_len(before) > room:
            before = "…" + before[2:]
        text = Text.assemble("    ", (before, "dim"), (word, "bold"), (after, "dim"))
        self._rich.print(text, no_wrap=True, overflow="ellipsis")

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; columns of numbers are aligned to the right."""
        if not self.is_terminal:
            self.line(f"{title}: " + " | ".join(header))
            for row in rows:
                self.line("  " + " | ".join(row))
            return
        table = Table(
            title=Text(title),
            title_justify="left",
            header_style="dim",
            box=SIMPLE_HEAD,
            collapse_padding=True,
        )
        for number, name in enumerate(header):
            numeric = all(map(_is_number, (row[number] for row in rows)))
            table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self._rich.print(table)

    @contextmanager
    def bar(self, name: str, total: float) -> Iterator[Bar]:
        """A bar of ``total`` units while the block runs."""
        if not self.is_terminal:
            yield _PlainBar(self, name, total)
            return
        # The note gives way on a narrow terminal, and the bar before it.
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


def printable(text: str) -> str:
    """``text`` with control characters as escapes: a file's name must not steer the terminal."""
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs") else ascii(c)[1:-1]
        for c in text
    )


def _is_number(cell: str) -> bool:
    """Return True if a cell is a number, with a unit or without, or says that there is none."""
    return cell in ("", "-") or cell.lstrip("-+~<>")[:1].isdigit()


def clock(seconds: float) -> str:
    """A length of time as minutes:seconds, or hours:minutes:seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def count(number: float) -> str:
    """A number a person can read at a glance: 8,123 or 12.3k or 4.56M."""
    if number < 10_000:
        return f"{number:,.0f}"
    for divisor, letter in ((1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")):
        # What rounds to a thousand is one of the next unit.
        if number / divisor < 999.5:
            return f"{number / divisor:.3g}{letter}"
    return f"{number / 1e12:,.0f}T"
