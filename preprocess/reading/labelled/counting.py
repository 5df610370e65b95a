"""Counting what is used and what is dropped, by reason and with places."""

from collections import Counter
from typing import Generic, NamedTuple

from preprocess.errors import UserError, one_line
from preprocess.reading.labelled.examples import SHOWN, T


class Dropped(NamedTuple):
    """A record that cannot be used.

    Attributes:
        reason: why.
        place: where it is.
    """

    reason: str
    place: str


class Counting(Generic[T]):
    """The records of a file in their order: examples, and those that cannot be used.

    Attributes:
        records: the records.
    """

    def __init__(self) -> None:
        self.records: list[T | Dropped] = []
        self._dropped: list[Dropped] = []

    def add(self, example: T) -> None:
        """Keep an example."""
        self.records.append(example)

    def drop(self, reason: str, place: str) -> None:
        """Count a record that cannot be used."""
        self._dropped.append(Dropped(reason, place))
        self.records.append(self._dropped[-1])

    @property
    def examples(self) -> tuple[T, ...]:
        """The examples."""
        return tuple(record for record in self.records if not isinstance(record, Dropped))

    @property
    def dropped(self) -> dict[str, int]:
        """Number of dropped records by reason."""
        return dict(Counter(one.reason for one in self._dropped))

    @property
    def shown(self) -> dict[str, tuple[str, ...]]:
        """The first places by reason."""
        found: dict[str, list[str]] = {}
        for reason, place in self._dropped:
            found.setdefault(reason, []).append(place)
        return {reason: tuple(places[:SHOWN]) for reason, places in found.items()}

    @property
    def read(self) -> int:
        """Number of records."""
        return len(self.records)

    def check(self, path: str, how: str, what: str) -> None:
        """Check that there is an example.

        Args:
            path: the file.
            how: how it was read, as `Reading.format`.
            what: what one example is, in the plural.

        Raises:
            UserError: all records were dropped, or there are none.
        """
        dropped = self.dropped
        if len(self._dropped) < self.read:
            return
        if not dropped:
            raise UserError(f"{one_line(path)}: read as {how}, it has no {what}; name another file")
        raise UserError(
            f"{one_line(path)}: read as {how}, none of its {self.read:,} records can be used "
            f"({reasons(dropped, self.shown)}); correct them, or set the format and the columns"
        )


def reasons(dropped: dict[str, int], shown: dict[str, tuple[str, ...]]) -> str:
    """Return the reasons for dropping records, with their number and places, on one line."""
    parts = []
    for reason, count in sorted(dropped.items(), key=lambda item: -item[1]):
        places = ", ".join(shown[reason])
        more = ", …" if count > len(shown[reason]) else ""
        parts.append(f"{reason} {count:,}: {places}{more}")
    return "; ".join(parts)
