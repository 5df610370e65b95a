"""The bar shows the units' records and never fails the job."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.beam import unit_bar as module
from pipeline.beam.unit_bar import Look, unit_bar
from pipeline.console import Bar, Console
from preprocess.work.progress import Progress, ProgressSums


class Seen(Console):
    """A console that keeps the updates of its bar."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[tuple[float, str]] = []
        self.updated = threading.Event()

    @contextmanager
    def bar(self, name: str, total: float) -> Iterator[Bar]:
        yield self

    def update(self, done: float, note: str = "", figures: Any = None) -> None:
        self.updates.append((done, note))
        self.figures = figures
        self.updated.set()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    return str(tmp_path)


def tell(work: str, unit: int, read: int, documents: int, tokens: int, **dropped: int) -> None:
    progress = Progress(work, unit)
    progress.bytes, progress.documents, progress.tokens = read, documents, tokens
    progress.dropped = (Counter(dropped),)
    progress.write(final=True)


def record(work: str, kind: str, number: int) -> None:
    folder = Path(work) / kind
    folder.mkdir(exist_ok=True)
    for unit in range(number):
        (folder / f"{unit:06d}.json").touch()


def show(
    work: str, total: int = 1000, units: int = 2
) -> tuple[tuple[float, str], list[Look | None]]:
    """Return the first update of the bar, and the looks that were passed on."""
    console, looks = Seen(), list[Look | None]()
    with unit_bar(work, console, "prepare", total, units, looks.append):
        assert console.updated.wait(10)
    return console.updates[0], looks


def test_the_bar_shows_the_sums_of_the_records(work: str) -> None:
    tell(work, 0, 100, 3, 20_000)
    tell(work, 1, 50, 4, 1)
    assert show(work)[0] == (150, "7 documents  20k tokens")


def test_the_bar_gets_the_figures_for_logs_and_metrics(work: str) -> None:
    tell(work, 0, 100, 3, 9, empty=5, too_short=12)
    record(work, "units", 2)
    record(work, "finished", 1)
    console = Seen()
    with unit_bar(work, console, "prepare", 1000, 4, lambda _: None):
        assert console.updated.wait(10)
    counts = {"bytes": 100, "documents": 3, "tokens": 9}
    units = {"units": 4, "units_read": 2, "units_finished": 1, "drop_lists": 0, "reports": 2}
    assert console.figures == {**counts, **units, "dropped": {"empty": 5, "too_short": 12}}


def test_the_bar_shows_the_most_common_drop_reasons(work: str) -> None:
    tell(work, 0, 100, 3, 9, empty=5, too_short=12_000, symbols=1, script=7)
    _, note = show(work)[0]
    assert note == "3 documents  9 tokens  dropped: 12k too_short, 7 script, 5 empty"


def test_the_speed_leaves_out_an_earlier_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = [(0.0, 5000), (10.0, 6000), (20.0, 7000), (55.0, 7000), (90.0, 7000)]
    times = iter([now for now, _ in looks])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    rate = module._Rate()
    assert [rate(done) for _, done in looks] == [0, 100, 100, 0, 0]


@pytest.mark.parametrize(
    ("finished", "note"), [(0, "deduplicating"), (1, "last pass: 1 of 2 units")]
)
def test_the_steps_after_the_first_pass_are_named(finished: int, note: str, work: str) -> None:
    tell(work, 0, 1000, 3, 9)
    record(work, "units", 2)
    record(work, "finished", finished)
    assert show(work)[0] == (1000, note)


def test_every_look_is_passed_on_with_the_errors_of_workers(work: str) -> None:
    tell(work, 0, 10, 3, 9)
    record(work, "units", 2)
    record(work, "drops", 3)
    (Path(work) / "failures").mkdir()
    (Path(work) / "failures" / "1.txt").write_text("a cut file")
    looks = show(work)[1]
    assert looks[0]
    assert (looks[0].tokenised, looks[0].compared, looks[0].finished) == (2, 3, 0)
    assert looks[0].failures == ("a cut file",)
    assert looks[0].sums["tokens"] == 9


def test_a_look_that_fails_is_passed_on_as_none_and_the_next_follows(
    work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, errors = ProgressSums.read, iter([OSError("a store's hiccup"), ValueError("half")])

    def hiccup(sums: ProgressSums) -> object:
        for error in errors:
            raise error
        return read(sums)

    monkeypatch.setattr(ProgressSums, "read", hiccup)
    tell(work, 0, 1, 1, 1)
    looks = show(work)[1]
    assert looks[:2] == [None, None]
    assert looks[2]


def test_slow_looks_are_rare(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SHARE", 1e-6)
    looks = []
    console = Seen()
    with unit_bar(work, console, "prepare", 10, 1, looks.append):
        assert console.updated.wait(10)
        time.sleep(0.2)
    assert len(looks) == 1


def test_the_bar_ends_with_the_block_even_if_it_fails(work: str) -> None:
    before = threading.active_count()
    with pytest.raises(RuntimeError), unit_bar(work, Seen(), "prepare", 10, 1, lambda _: None):
        raise RuntimeError
    assert threading.active_count() == before
