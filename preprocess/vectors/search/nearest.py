"""The nearest items of a long stream of candidates, at most one for each key, in bounded memory."""

from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Candidate(NamedTuple, Generic[Item]):
    """The nearest item of a key, with its cosine similarity."""

    key: Hashable
    cosine: float
    item: Item


class NearestByKey(Generic[Item]):
    """The nearest item of each key; the keys that are not among the ``most`` nearest are forgotten.

    The nearest items of the ``most`` keys are exact: a key that was forgotten and comes back nearer is
    kept again.

    Args:
        most: number of keys to keep.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: dict[Hashable, tuple[float, Item]] = {}
        self.least = float("-inf")
        """Candidates that are not nearer than this cannot be among the nearest."""

    def add(self, key: Hashable, cosine: float, item: Callable[[], Item]) -> None:
        """Consider a candidate; ``item`` makes the item if it is kept. The first of equals is kept."""
        if cosine <= self.least:
            return
        known = self._found.get(key)
        if known is None or cosine > known[0]:
            self._found[key] = cosine, item()
            if len(self._found) >= 2 * self._most + 1:
                kept = self.ordered()[: self._most]
                self._found = {one.key: (one.cosine, one.item) for one in kept}
                self.least = kept[-1].cosine

    def ordered(self) -> list[Candidate[Item]]:
        """Return the nearest item of each key, the nearest first."""
        found = [Candidate(key, *value) for key, value in self._found.items()]
        return sorted(found, key=lambda one: -one.cosine)
