"""The bar over units: what they wrote, and nothing that can fail the job."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline import unit_bar as module
from pipeline.console import Bar, Console
from pipeline.stage import Place
from pipeline.unit_bar import unit_bar


class Seen(Console):
    """Keeps what its bar is told."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[tuple[float, str]] = []
        self.updated = threading.Event()

    @contextmanager
    def bar(self, name: str, total: float) -> Iterator[Bar]:
        yield self

    def update(self, done: float, note: str = "") -> None:
        self.updates.append((done, note))
        self.updated.set()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    (tmp_path / "_work" / "progress").mkdir(parents=True)
    return Place(str(tmp_path))


def tell(place: Place, unit: int, **counts: int) -> None:
    record = Path(place.work) / "progress" / f"{unit:06d}.json"
    record.write_text(json.dumps(counts))


def test_the_bar_shows_the_sums_of_what_units_wrote(place: Place) -> None:
    tell(place, 0, bytes=100, documents=3, tokens=20_000)
    tell(place, 1, bytes=50, documents=4, tokens=1)
    console = Seen()
    with unit_bar(place, console, "prepare", 1000):
        assert console.updated.wait(10)
    assert console.updates[0] == (150, "7 documents  20k tokens")


def test_a_look_that_fails_is_followed_by_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums, looks = module.progress_sums, iter([OSError("a store's hiccup"), ValueError("half")])

    def hiccup(work: str) -> object:
        for error in looks:
            raise error
        return sums(work)

    monkeypatch.setattr(module, "progress_sums", hiccup)
    tell(place, 0, bytes=1, documents=1, tokens=1)
    console = Seen()
    with unit_bar(place, console, "prepare", 1000):
        assert console.updated.wait(10)


def test_the_watch_ends_with_the_block_also_where_it_fails(place: Place) -> None:
    before = threading.active_count()
    with pytest.raises(RuntimeError), unit_bar(place, Seen(), "prepare", 1000):
        raise RuntimeError
    assert threading.active_count() == before
