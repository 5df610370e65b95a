"""`biloom cache`: inspect, query, check or convert a vector cache."""

import json
import sys
from collections.abc import Iterable

from pipeline.commands.cache_export import export_cache
from pipeline.commands.inspection import folder_of
from pipeline.console import Console, count
from pipeline.log import tell
from preprocess.files.manifest import DamagedManifest, read_manifest
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.check import check_cache, unlisted_files


def info(path: str) -> None:
    """Print the sizes, settings and origin of a cache.

    Raises:
        ManifestError: there is no finished cache.
        CacheError: the cache is damaged.
    """
    cache = VectorCache.open(path)
    manifest = cache.manifest
    size = sum(file.bytes for file in manifest.files)
    console = Console()
    console.stage("vector cache", cache.path)
    console.line(f"texts        {len(cache):,}" + ("" if cache.texts_kept else " (not kept)"))
    console.line(f"vectors      {cache.units:,} {cache.unit}s, {cache.layers} x {cache.dim} each")
    console.line(
        f"stored as    {manifest.details['dtype']}, {count(size)}B, {len(cache.shards):,} shards"
    )
    for key, value in manifest.details.get("vectors", {}).items():
        console.line(f"{key:<12} {json.dumps(value, ensure_ascii=False)}")
    console.line(f"model        {cache.model}")
    console.line(f"content      {manifest.content}")
    console.line(f"added to     {cache.generation:,} times")


def get(path: str, texts: list[str], words: bool) -> int:
    """Print one JSON object per text, with its vectors; return 1 if a text is not in the cache.

    Args:
        path: folder or URL of the cache.
        texts: if empty, each line of standard input is a text.
        words: look up each text as the list of its words, which whitespace separates.
    """
    cache = VectorCache.open(path)
    absent = 0
    for text in texts or _lines():
        asked = text.split() if words else text
        try:
            vectors = cache[asked]
        except KeyError as error:
            tell(error.args[0])
            absent += 1
            continue
        found: dict[str, object] = {"text": asked}
        if cache.texts_kept:
            found["tokens"] = cache.tokens(asked)
        # str gives the shortest digits that identify the value in its own dtype.
        found["vectors"] = [
            [[float(str(value)) for value in unit] for unit in layer] for layer in vectors
        ]
        print(json.dumps(found), flush=True)
    return 1 if absent else 0


def _lines() -> Iterable[str]:
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")


def verify(path: str) -> int:
    """Hash a cache's files and read every entry; return 0 if all are intact, else 1.

    Raises:
        ManifestError: there is no finished cache, or a newer version wrote it.
    """
    path = folder_of(path)
    console = Console()
    try:
        manifest = read_manifest(path, "embed")
    except DamagedManifest as error:
        console.warn(str(error))
        return 1
    with console.bar("verify", sum(file.bytes for file in manifest.all_files)) as bar:
        found = check_cache(path, manifest, bar.update)
    for name in unlisted_files(path, manifest):
        console.line(f"{name} is not part of the cache, and not read")
    for name, reasons in found.damage.items():
        console.warn(f"{name}: {'; '.join(reasons)}")
    if found.damage:
        console.line(
            f"the cache is damaged: {len(found.damage):,} of {len(manifest.all_files):,} files, and "
            f"entries that cannot be read or found: {found.entries:,}; make it again with `biloom "
            "embed --overwrite`, or copy it again"
        )
        return 1
    with VectorCache.open(path) as cache:
        console.line(
            f"{len(cache):,} texts in {len(manifest.all_files):,} files: all are intact and can be "
            "found"
        )
    return 0


def export(path: str, file: str) -> None:
    """Write a cache in the format that the suffix of ``file`` names.

    Raises:
        CacheError: the cache is damaged, or does not keep its texts.
        ExportError: no format has this suffix, or the file exists.
    """
    console = Console()
    with VectorCache.open(path) as cache, console.bar("export", len(cache)) as bar:
        names = export_cache(cache, file, bar.update)
        texts = len(cache)
    console.line(f"{texts:,} texts in {', '.join(names)}")
    if file.endswith((".hdf5", ".h5")):
        console.line(
            "the numbers of data sets are not line numbers, because a repeated text is stored once; "
            "`sentence_to_index` has the number of each text"
        )
