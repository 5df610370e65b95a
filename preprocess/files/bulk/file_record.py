"""The record of a file in a manifest."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from preprocess.files.details import ManifestError as ManifestError

_LIMIT = 1 << 63
"""Sizes and counts are below this number."""
_XXH128 = re.compile(r"[0-9a-f]{32}")
# A backslash and a colon separate folders or drives on other systems; a colon also begins a URL.
_PART = re.compile(r"(?!\.\.?\Z)[^/\\:\x00-\x1f\x7f\ud800-\udfff]{1,255}")


@dataclass(frozen=True)
class FileRecord:
    """A file of a stage.

    Attributes:
        name: path relative to the stage's folder.
        bytes: size in bytes.
        xxh128: XXH3 128-bit hash of its content, 32 hexadecimal digits.
        counts: further columns of the manifest, such as tokens or the split.
    """

    name: str
    bytes: int
    xxh128: str
    counts: Mapping[str, int | str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        assert not {"name", "bytes", "xxh128"} & self.counts.keys(), "reserved column name"
        if not is_name_below(self.name):
            raise ManifestError(f"a file has the name {self.name!r:.60}, not one in the folder")
        if type(self.xxh128) is not str or not _XXH128.fullmatch(self.xxh128):
            raise ManifestError(f"the hash of '{self.name}' is {self.xxh128!r:.60}")
        if not is_size(self.bytes):
            raise ManifestError(f"the size of '{self.name}' is {self.bytes!r:.60}")
        for column, value in self.counts.items():
            if not isinstance(value, str) and not is_size(value):
                raise ManifestError(f"column '{column}' of '{self.name}' is {value!r:.60}")

    def difference(self, size: int, digest: str) -> str:
        """Return how a file of this size and xxh128 differs from the record, or "" if it does not."""
        if size != self.bytes:
            return f"{size:,} bytes, not {self.bytes:,}"
        return "" if digest == self.xxh128 else f"hash {digest}, not {self.xxh128}"


def is_name_below(name: Any) -> bool:
    """Return True if a value is the name of a file in a folder or below it, as in a manifest."""
    return type(name) is str and all(map(_PART.fullmatch, name.split("/")))


def is_size(value: Any) -> bool:
    """Return True for a size or count."""
    return type(value) is int and 0 <= value < _LIMIT
