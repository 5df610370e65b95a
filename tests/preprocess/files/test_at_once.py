"""Calls at once: results in order, bounded waiting, and errors."""

import threading
import time
from collections.abc import Iterator

import pytest

from preprocess.files.bulk import at_once as module
from preprocess.files.bulk.at_once import AHEAD, at_once


@pytest.mark.parametrize("folder", ["memory://folder", "/folder"])
def test_results_are_in_the_order_of_the_items(folder: str) -> None:
    def slow(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    assert [*at_once(folder, slow, range(50))] == [n * n for n in range(50)]
    assert [*at_once(folder, slow, [])] == []


def test_calls_to_a_store_overlap_and_those_to_a_disk_do_not() -> None:
    barrier = threading.Barrier(4, timeout=10)
    waited = [*at_once("memory://folder", lambda _: barrier.wait() >= 0, range(4))]
    assert waited == [True] * 4
    threads = {*at_once("/folder", lambda _: threading.get_ident(), range(4))}
    assert threads == {threading.get_ident()}


def test_no_more_items_are_taken_than_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD", 8)
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10 * AHEAD):
            taken.append(number)
            yield number

    results = at_once("memory://folder", lambda number: number, items())
    assert next(results) == 0
    assert len(taken) == 8
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", ["memory://folder", "/folder"])
def test_the_error_of_a_call_reaches_the_caller(folder: str) -> None:
    def fails(number: int) -> int:
        if number == 3:
            raise FileNotFoundError("three")
        return number

    with pytest.raises(FileNotFoundError, match="three"):
        list(at_once(folder, fails, range(100)))
