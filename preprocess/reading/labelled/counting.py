"""Counting what is used and what is dropped, by reason and with places."""

from typing import Generic

from preprocess.errors import UserError, one_line
from preprocess.reading.labelled.examples import SHOWN, T


class Counting(Generic[T]):
    """The examples of a file that is being read, and what became of its other records.

    Attributes:
        examples: the examples.
        dropped: number of dropped records by reason.
        shown: the first places by reason.
    """

    def __init__(self) -> None:
        self.examples: list[T] = []
        self.dropped: dict[str, int] = {}
        self.shown: dict[str, tuple[str, ...]] = {}

    def add(self, example: T) -> None:
        """Keep an example."""
        self.examples.append(example)

    def drop(self, reason: str, place: str) -> None:
        """Count a record that cannot be used."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        places: tuple[str, ...] = self.shown.get(reason, ())
        if len(places) < SHOWN:
            self.shown[reason] = (*places, place)

    @property
    def read(self) -> int:
        """Number of records."""
        return len(self.examples) + sum(self.dropped.values())

    def check(self, path: str, how: str, what: str) -> None:
        """Check that there is an example.

        Args:
            path: the file.
            how: how it was read, as `Reading.format`.
            what: what one example is, in the plural.

        Raises:
            UserError: all records were dropped, or there are none.
        """
        if self.examples:
            return
        if not self.dropped:
            raise UserError(f"{one_line(path)}: read as {how}, it has no {what}; name another file")
        raise UserError(
            f"{one_line(path)}: read as {how}, none of its {self.read:,} records can be used "
            f"({reasons(self.dropped, self.shown)}); correct them, or set the format and the columns"
        )


def reasons(dropped: dict[str, int], shown: dict[str, tuple[str, ...]]) -> str:
    """Return the reasons for dropping records, with their number and places, on one line."""
    parts = []
    for reason, count in sorted(dropped.items(), key=lambda item: -item[1]):
        places = ", ".join(shown[reason])
        more = ", …" if count > len(shown[reason]) else ""
        parts.append(f"{reason} {count:,}: {places}{more}")
    return "; ".join(parts)
