"""Labels that have a column each, which holds 1 if a text has the label and 0 if it has not."""

from collections.abc import Sequence

_SET, _UNSET = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}
NEITHER = "a label column holds neither 0 nor 1"


def named_columns(option: str | None, names: Sequence[str]) -> list[str]:
    """Return the names in a setting such as ``toxic,obscene``; none if it names a single column."""
    if option is None or option in names or "," not in option:
        return []
    return [name.strip() for name in option.split(",") if name.strip()]


def are_flags(column: Sequence[str]) -> bool:
    """Return True if all values of a column mean yes or no, and both occur."""
    values = {value.strip().lower() for value in column}
    return bool(values & _SET) and bool(values & _UNSET) and values <= _SET | _UNSET


def labels_of(names: Sequence[str], values: Sequence[object]) -> list[str] | None:
    """Return the labels that a text has, or None if a value means neither yes nor no."""
    found: list[str] = []
    for name, value in zip(names, values, strict=True):
        written = str(value).strip().lower()
        if written in _SET:
            found.append(name)
        elif written not in _UNSET:
            return None
    return found
