"""The sentence that compares two rows of a table."""

from collections.abc import Mapping

from preprocess.errors import one_line


def comparison(
    row: str,
    other: str,
    score: str,
    difference: Mapping[str, float],
    scale: float = 100,
    digits: int = 1,
) -> str:
    """Return a sentence that says whether a row is above another one.

    Args:
        row, other: what the rows are called.
        score: the score that is compared.
        difference: the difference of the scores, ``value``, and its 95 % interval, ``low`` to ``high``.
        scale: factor of the printed numbers.
        digits: their decimal places.
    """
    value, low, high = (scale * difference[key] for key in ("value", "low", "high"))
    verdict = "above" if low > 0 else "below" if high < 0 else "not different from"
    by = f"{abs(value):.{digits}f} " if verdict != "not different from" else ""
    return (
        f"the {row} is {by}{verdict} {one_line(other)} ({score}; difference {value:+.{digits}f}, "
        f"95 % interval {low:+.{digits}f} to {high:+.{digits}f})"
    )
