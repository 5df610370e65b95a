"""Fingerprints: one hash of the settings and inputs of a stage, equal on every machine.

A stage is already done if its manifest has the same fingerprint. So equal settings must give the
same JSON text: sorted keys, no spaces, tuples as lists. Values without one fixed text, such as sets
or objects known by their repr, are refused.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

SHOWN = 60
"""Maximum characters of a value in a message."""

_DIGITS = 100
"""Maximum digits of an integer; Python cannot convert an integer of 310 digits to a float."""
_DEPTH = 50
"""Maximum nesting of JSON from an untrusted source."""


def plain(value: Any, where: str = "") -> Any:
    """Convert a value to JSON types: pydantic models to dicts, tuples to lists.

    Args:
        value: nested settings.
        where: dotted key of ``value``, for error messages.

    Raises:
        TypeError: the value contains something else (a set, a path, a non-string key, NaN).
    """
    if isinstance(value, BaseModel):
        return plain(value.model_dump(), where)
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{where or 'value'}: the key {odd[0]!r} is not a string")
        return {key: plain(item, f"{where}.{key}" if where else key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{where or 'value'}: JSON cannot represent {value!r}")
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{where or 'value'}: JSON cannot represent {type(value).__name__}")


def parse_json(data: bytes) -> dict[str, Any]:
    """Parse a JSON object from an untrusted source.

    Raises:
        ValueError, TypeError, RecursionError: it is not JSON or not an object, or it has a number that
            Python's parser accepts but biloom does not (NaN, infinity, more than 100 digits).
    """

    def integer(text: str) -> int:
        if len(text) > _DIGITS:
            raise ValueError(f"a number has {len(text):,} digits")
        return int(text)

    def real(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"a number is {text:.40}")
        return value

    raw = json.loads(data, parse_int=integer, parse_float=real, parse_constant=real)
    if not isinstance(raw, dict):
        raise TypeError("it is not a JSON object")
    return raw


def check_depth(value: Any, key: str) -> None:
    """Raise an error if a value is nested so deeply that recursive functions could fail.

    Raises:
        ValueError: ``value`` is nested too deeply. The message names ``key``.
    """
    level = [value]
    for _ in range(_DEPTH):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ValueError(f"'{key}' is nested too deeply")


def canonical_json(value: Any) -> str:
    """Return the canonical JSON of a value: ASCII, sorted keys, no spaces, floats by their repr.

    Raises:
        TypeError: as in `plain`.
    """
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"))


def fingerprint(asked: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of settings and inputs, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(asked).encode()).hexdigest()


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a line for each setting that differs, such as ``train.steps: 600 -> 1200``.

    The list is empty if, and only if, the fingerprints are equal.
    """
    return list(_differences(plain(old), plain(new), ""))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in sorted({*old, *new}):
        name = prefix + key
        if key not in old:
            yield f"{name}: added {_shown([new[key]])[0]}"
        elif key not in new:
            yield f"{name}: removed (was {_shown([old[key]])[0]})"
        elif isinstance(old[key], dict) and isinstance(new[key], dict):
            yield from _differences(old[key], new[key], f"{name}.")
        elif canonical_json(old[key]) != canonical_json(new[key]):
            before, after = _shown([old[key], new[key]])
            yield f"{name}: {before} -> {after}"


def _shown(values: Sequence[Any]) -> list[str]:
    """Return each value as JSON, cut so that the first difference of long values is visible."""
    texts = [json.dumps(value, sort_keys=True, ensure_ascii=False) for value in values]
    # A lone surrogate cannot be printed; its JSON escape can.
    texts = [text.encode("utf-8", "backslashreplace").decode() for text in texts]
    start = 0
    if len(texts) > 1 and max(map(len, texts)) > SHOWN:
        shorter = min(map(len, texts))
        differing = (i for i in range(shorter) if len({text[i] for text in texts}) > 1)
        start = max(0, next(differing, shorter) - SHOWN // 3)
    return [
        ("..." if start else "")
        + text[start : start + SHOWN]
        + ("..." if len(text) > start + SHOWN else "")
        for text in texts
    ]
