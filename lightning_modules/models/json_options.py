"""Read the JSON files that describe other programs' models, which may come from an untrusted source."""

import json
from collections.abc import Iterator, Mapping, Set
from typing import Any

from lightning_modules.models.elmo_errors import ElmoError, reading
from preprocess.errors import one_line
from preprocess.files import storage

MOST_BYTES = 1 << 20
"""Largest file that is read."""

BEYOND = 1 << 31
"""Numbers must be smaller."""


def load_json(path: str, hint: str) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        path: the file.
        hint: what to do if it is missing.

    Raises:
        ElmoError: the file cannot be read, or holds a number that is too large.
        ValueError, TypeError, RecursionError: it is no JSON object, is too large, or repeats a key.
    """
    with reading(path, hint):
        data = storage.read_bytes(path, 0, MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
    options = json.loads(data, object_pairs_hook=_without_repeats)
    if not isinstance(options, dict):
        raise TypeError("it is not a JSON object")
    for name, value in _numbers(options):
        if not abs(value) < BEYOND:
            shown = value if isinstance(value, float) else "too large"
            raise ElmoError(f"{path}: {name} is {shown}; it must be a number below 2^31")
    return options


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"'{one_line(name)}' is given twice")
        found[name] = value
    return found


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, int | float]]:
    """Yield the numbers in a JSON value, each with its dotted name."""
    if isinstance(value, int | float):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{one_line(key)}" if name else one_line(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name)


def section_of(options: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the object with a dotted name; "" is the top level.

    Raises:
        KeyError: it is missing.
        TypeError: it is not an object.
    """
    found: Any = options
    for key in filter(None, name.split(".")):
        found = found[key]
        if not isinstance(found, dict):
            raise TypeError(f"'{name}' is not an object")
    section: dict[str, Any] = found
    return section


def check_keys(
    path: str,
    section: str,
    options: Mapping[str, Any],
    known: Set[str],
    neutral: Mapping[str, tuple[str, ...]],
) -> None:
    """Check that no option is ignored that may change the network.

    Args:
        path: the file.
        section: dotted name of the object.
        options: the object.
        known: options that are read or have no effect on the network.
        neutral: values, in JSON, with which another option has no effect.

    Raises:
        ElmoError: an option is not known, or has a value that is not supported.
    """
    for name in sorted(options.keys() - known):
        where = one_line(f"{section}.{name}" if section else name)
        if name not in neutral:
            raise ElmoError(
                f"{path}: the option '{where}' is not known, and may describe another network than "
                "the one that is built; remove it if it has no effect on the vectors"
            )
        # Compared as JSON, because 1 == True in Python.
        if json.dumps(options[name]) not in neutral[name]:
            raise ElmoError(
                f"{path}: '{where}' is {json.dumps(options[name])[:40]}, which is not supported; only "
                f"models with {neutral[name][0]} can be imported"
            )
