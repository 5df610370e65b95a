"""Shape and files of a vector cache, read from its manifest and validated."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from preprocess.files.manifest import FileRecord, Manifest
from preprocess.vectors.codec import CacheError, Codec
from preprocess.vectors.files import (
    IndexPlace,
    ShardName,
    damaged_cache,
    index_place,
    make_again,
    shards_of,
)

LARGEST = 1 << 20
"""Maximum number of layers of an entry."""

ASKED_MODEL = "model.content"
"""Key of the model's ``content`` hash in the settings that a manifest of an embed stage records."""

UNITS = ("token", "word", "sentence")
"""What can have a vector."""


class Layout(NamedTuple):
    """Shape and files of a cache.

    Attributes:
        layers: layers per entry.
        codec: format of the vectors.
        unit: what has a vector: "token", "word" or "sentence".
        model: ``content`` hash of the model that made the vectors.
        texts_kept: True if the cache holds its texts, not only their keys.
        records: manifest records of the files by name.
        shards: names of the shards, in order.
        sizes: entries of each shard.
        index_files: names of the files of the index, in order.
        generation: how often texts were added to the finished cache.
    """

    layers: int
    codec: Codec
    unit: str
    model: str
    texts_kept: bool
    records: Mapping[str, FileRecord]
    shards: list[ShardName]
    sizes: list[int]
    index_files: tuple[str, ...]
    generation: int


def layout_of(path: str, manifest: Manifest) -> Layout:
    """Return the layout of a cache.

    Args:
        path: folder or URL of the cache, for messages.
        manifest: its manifest.

    Raises:
        CacheError: a value in the manifest is missing or not valid.
    """
    details = manifest.details
    layers = _detail(path, details, "layers", int)
    if not 1 <= layers <= LARGEST:
        raise _wrong(path, "layers", layers)
    unit = _detail(path, details, "unit", str)
    if unit not in UNITS:
        raise _wrong(path, "unit", unit)
    model = _detail(path, details, "model", str)
    # Manifests of version 0.1 have no checksum, but the hash of the model twice.
    if manifest.asked.get(ASKED_MODEL, model) != model:
        raise damaged_cache(path, f"its manifest has two models, {model!r:.15} and another")
    texts_kept = _detail(path, {"texts_kept": True, **details}, "texts_kept", bool)
    dtype, dim = _detail(path, details, "dtype", str), _detail(path, details, "dim", int)
    try:
        codec = Codec(dtype, dim)
    except CacheError as error:
        raise damaged_cache(path, str(error)) from error
    records = {record.name: record for record in manifest.files}
    index_files, generation = _index_files(path, records)
    shards, sizes = shards_of(records), []
    for shard in shards:
        for name in (shard.vectors, *([shard.texts] if texts_kept else [])):
            if name not in records:
                raise damaged_cache(path, f"its manifest does not list {name}")
        entries = records[shard.entries].counts.get("entries")
        if not isinstance(entries, int) or entries < 0:
            raise damaged_cache(
                path, f"its manifest says that {shard.entries} has {entries} entries"
            )
        sizes.append(entries)
    return Layout(
        layers,
        codec,
        unit,
        model,
        texts_kept,
        records,
        shards,
        sizes,
        index_files,
        generation,
    )


def _index_files(path: str, names: Iterable[str]) -> tuple[tuple[str, ...], int]:
    """Return the names of the files of the index, in order, and the generation."""
    places = [place for place in map(index_place, names) if place]
    generations = {place.generation for place in places}
    if len(generations) != 1:
        raise damaged_cache(path, f"its manifest lists {len(generations)} indexes, not 1")
    (generation,), count = generations, len(places)
    numbers = [None] if places[0].number is None else range(count)
    expected = [IndexPlace(generation, number) for number in numbers]
    if {*places} != {*expected} or count & (count - 1):
        raise damaged_cache(path, f"its manifest lists {count} files of an index that has others")
    return tuple(place.name for place in expected), generation


def _detail(path: str, details: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in details:
        raise CacheError(f"{path}: the manifest of the vector cache lacks {name!r}; {make_again()}")
    value = details[name]
    # True is an integer, too.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(path, name, value)
    return value


def _wrong(path: str, name: str, value: object) -> CacheError:
    return damaged_cache(path, f"its manifest has {name} {value!r:.60}")
