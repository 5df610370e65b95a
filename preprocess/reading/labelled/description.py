"""What a user is told about a file that was read."""

from preprocess.reading.labelled.examples import Reading, T


def describe(reading: Reading[T]) -> tuple[str, ...]:
    """Return lines that tell a user how a file was read, and what was dropped and why."""
    raise NotImplementedError
