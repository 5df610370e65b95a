"""What a stage was asked to do, as one hash that two machines agree on.

A run is "already done" when its fingerprint stands in the manifest, so equal questions must give
equal bytes: keys sorted, no spaces, a tuple like the list that JSON makes of it. A value whose text
could differ between two runs (a set, an object's repr) is refused and never guessed at.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

SHOWN = 60


def plain(value: Any, where: str = "") -> Any:
    """``value`` with nothing but what JSON holds: models dumped, tuples as lists.

    Raises:
        TypeError: it holds something else (a set, a path, a key that is no string, NaN).
    """
    if isinstance(value, BaseModel):
        return plain(value.model_dump(), where)
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{where or 'value'}: the key {odd[0]!r} is not a string")
        return {key: plain(one, f"{where}.{key}" if where else key) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, f"{where}[{index}]") for index, one in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{where or 'value'}: {value!r} has no place in JSON")
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{where or 'value'}: {type(value).__name__} has no place in JSON")


def canonical_json(value: Any) -> str:
    """The one JSON text of ``value``: ASCII, sorted keys, no spaces, floats by their repr.

    Raises:
        TypeError: as ``plain``.
    """
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"))


def fingerprint(asked: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of ``asked``, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(asked).encode()).hexdigest()


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line a key that differs, as ``train.steps: 600 -> 1200``; none where fingerprints agree."""
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
    """Each value as JSON, cut so that the place where two long ones part can be seen."""
    texts = [json.dumps(value, sort_keys=True, ensure_ascii=False) for value in values]
    # A lone surrogate cannot be printed; its JSON escape can.
    texts = [text.encode("utf-8", "backslashreplace").decode() for text in texts]
    start = 0
    if len(texts) > 1 and max(map(len, texts)) > SHOWN:
        shorter = min(map(len, texts))
        parting = next((i for i in range(shorter) if len({t[i] for t in texts}) > 1), shorter)
        start = max(0, parting - SHOWN // 3)
    return [
        ("..." if start else "")
        + text[start : start + SHOWN]
        + ("..." if len(text) > start + SHOWN else "")
        for text in texts
    ]
