"""Many calls of a store at once, because each waits some 20 ms for an answer."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from preprocess.files.paths import is_remote

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 64
"""Calls at once. At 20 ms each, these are 3,200 a second, below a store's limit for a prefix."""
AHEAD = 4 * THREADS
"""Results that wait for the caller at most, so that memory does not grow with the number of items."""


def at_once(
    folder: str, function: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in the order of items; many calls run at once.

    On a local disk, one call runs after the other, because threads would only compete for the interpreter.

    Args:
        folder: folder of the files that the calls use.
        function: called from several threads.
        items: the items.
        threads: maximum number of calls at once.
    """
    if not is_remote(folder):
        yield from map(function, items)
        return
    rest = iter(items)
    with ThreadPoolExecutor(threads, "store") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in rest:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
