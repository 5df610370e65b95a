"""Known corpora: finished corpora whose documents are dropped from the one that is prepared.

A finished corpus has the keys of its documents (`preprocess.shards.document_keys`). They are written
into the same shuffles as the keys of the new corpus (`write_known_keys`), so that the number of requests
grows with the number of segments. The units of known corpora are numbered after those of the new
corpus, but their documents count as earlier and are always kept.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.corpus.dedup import band_keys, known_hash_keys, write_keys
from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.files.manifest import FileRecord, Manifest, read_manifest
from preprocess.files.verified import read_verified
from preprocess.shards import document_keys
from preprocess.shards.document_keys import DocumentKeys
from preprocess.shards.origins import DocumentKey
from preprocess.text.config import NearDuplicateConfig
from preprocess.text.minhash import VERSION
from preprocess.work import folder, near_files
from preprocess.work.shuffle import Layout

KEYS = "keys"
"""Entry of the details of a corpus that has the keys of its documents: the settings of `key_settings`."""

EXACT_ONLY = "only its exact duplicates are dropped, because it was prepared with {theirs} and this corpus with {ours}"

_FILES = np.dtype(
    [("unit", "<u4"), ("segment", "<u4"), ("bytes", "<u8"), ("high", "<u8"), ("low", "<u8")]
)
"""Columns of the files of keys of a corpus: unit and segment, size in bytes, halves of the xxh128."""


@dataclass(frozen=True)
class KnownCorpus:
    """A finished corpus that documents are compared with.

    Attributes:
        folder: absolute path or URL of the corpus.
        content: `Manifest.content`.
        units: number of its units.
        near: True if its near-duplicates are dropped, too.
    """

    folder: str
    content: str
    units: int
    near: bool


def key_settings(near: NearDuplicateConfig) -> dict[str, Any]:
    """Return the settings that keys depend on, for the details of a corpus that keeps them."""
    if near.similarity is None:
        return {"near_duplicates": None}
    return {
        "near_duplicates": {
            "similarity": near.similarity,
            "seed": near.seed,
            "version": VERSION,
        }
    }


def open_known(
    path: str, cleaning: Sequence[dict[str, Any]], near: NearDuplicateConfig
) -> tuple[KnownCorpus, str]:
    """Return a known corpus, and why its near-duplicates are not dropped, or "".

    Args:
        path: absolute path or URL of the corpus.
        cleaning: settings that change texts of each source of the new corpus: of cleaning, of masks
            (``prepare.mask.email``) and `text_filters`.
        near: settings of the new corpus.

    Raises:
        ManifestError: there is no finished corpus, or its manifest is damaged.
        UserError: it has no keys, or its documents were changed in another way.
    """
    manifest = read_manifest(path, "prepare")
    details = manifest.details
    if KEYS not in details:
        raise UserError(
            f"prepare.known: {path} has no keys of its documents, because it was prepared with "
            "prepare.keep_keys=false or by an earlier version of biloom; prepare it in another run.output"
        )
    mask = {k: v for k, v in manifest.asked.items() if k.startswith("prepare.mask.")}
    theirs = [
        {**source["cleaning"], **mask, **text_filters(source.get("filters", {}))}
        for source in details["sources"]
    ]
    if differing := _differing(theirs, cleaning):
        raise UserError(
            f"prepare.known: the documents of {path} were changed by other settings ({differing}), so "
            "equal texts cannot be recognised; prepare one of the corpora with the settings of the other"
        )
    units = 1 + max((unit for unit, _ in _segments(manifest)), default=-1)
    same = details[KEYS] == key_settings(near)
    wants = near.similarity is not None
    reason = ""
    if wants and not same:
        settings = (_described(one) for one in (details[KEYS], key_settings(near)))
        reason = EXACT_ONLY.format(**dict(zip(("theirs", "ours"), settings, strict=True)))
    return KnownCorpus(path, manifest.content, units, wants and same), reason


def text_filters(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the filters that remove lines, from the filters that a source sets."""
    return {f"prepare.filters.{name}": filters.get(name) for name in ("c4", "refinedweb_lines")}


def _differing(theirs: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]) -> str:
    """Return the settings that differ, or "" if the sources have the same ones."""
    every = [*theirs, *ours]
    names = sorted({name for one in every for name in one})
    values = {
        name: tuple(
            " and ".join(sorted({one_line(str(one.get(name))) for one in group}))
            for group in (theirs, ours)
        )
        for name in names
    }
    return ", ".join(f"{name}: {a}, here {b}" for name, (a, b) in values.items() if a != b)


def _described(settings: dict[str, Any]) -> str:
    near = settings["near_duplicates"]
    if near is None:
        return "prepare.near_duplicates.similarity=null"
    names = ", ".join(f"{name}={value}" for name, value in near.items() if name != "version")
    return f"prepare.near_duplicates.{names} (version {near['version']} of the detection)"


def first_units(known: Sequence[KnownCorpus]) -> list[int]:
    """Return the number of units before each corpus, and their total."""
    return [0, *accumulate(corpus.units for corpus in known)]


def locate(known: Sequence[KnownCorpus], key: DocumentKey) -> tuple[int, DocumentKey]:
    """Return the corpus of a known document, and the document there.

    Args:
        known: the known corpora.
        key: the document; its unit is counted over all known corpora.
    """
    starts = first_units(known)
    index = bisect_right(starts, key.unit) - 1
    # Corpora without units have the start of the one that follows.
    return index, DocumentKey(key.unit - starts[index], key.number)


def write_known_keys(
    work: str, known: Sequence[KnownCorpus], hashes: Layout, bands: Layout, number: int
) -> int:
    """Write the keys of a known unit into the shuffles, unless they are written, and return its number.

    Args:
        work: folder of unfinished work.
        known: the known corpora.
        hashes: layout of the keys of content hashes.
        bands: layout of the keys of MinHash bands.
        number: number of the unit among all known units.

    Raises:
        UserError: the corpus changed, or a file is damaged.
    """
    record = near_files.known_record(work, number)
    if folder.is_done(work, record):
        return number
    index, (their_unit, _) = locate(known, DocumentKey(number, 0))
    corpus, unit = known[index], hashes.own + number
    manifest, files = _keys_of(corpus.folder, corpus.content)
    documents = 0
    first, end = np.searchsorted(files["unit"], [their_unit, their_unit + 1])
    for _, segment, size, high, low in files[first:end].tolist():
        name = f"{document_keys.name_of(their_unit, segment)}.zst"
        listed = replace(manifest, files=(FileRecord(name, size, f"{high << 64 | low:032x}"),))
        data = read_verified(corpus.folder, listed, name)
        keys = DocumentKeys.decode(data, storage.join(corpus.folder, name))
        documents += len(keys.numbers)
        rows = known_hash_keys(keys.hashes, keys.numbers)
        write_keys(work, "hashes", unit, segment, rows, hashes)
        if corpus.near:
            rows = band_keys((keys.bands, keys.sketches), keys.numbers)
            write_keys(work, "bands", unit, segment, rows, bands)
    folder.write_done(work, record, {"documents": documents})
    return number


@cache
def _keys_of(path: str, content: str) -> tuple[Manifest, npt.NDArray[Any]]:
    """Return the manifest of a known corpus without files, and its files of keys (`_FILES`) by unit.

    A worker reads each manifest once, whatever the number of corpora and the order of their units. It
    holds 32 bytes for each file of keys.
    """
    manifest = read_manifest(path, "prepare")
    if manifest.content != content:
        raise UserError(f"{path} changed while it was read; run the command again")
    rows = []
    for file in manifest.files:
        if match := document_keys.NAME.fullmatch(file.name):
            halves = int(file.xxh128[:16], 16), int(file.xxh128[16:], 16)
            rows.append((int(match[1]), int(match[2]), file.bytes, *halves))
    files = np.sort(np.array(rows, _FILES), order=["unit", "segment"])
    return replace(manifest, files=(), beside=(), details={}, asked={}), files


def _segments(manifest: Manifest) -> list[tuple[int, int]]:
    """Return the unit and number of each segment that has keys, in order."""
    matches = (document_keys.NAME.fullmatch(file.name) for file in manifest.files)
    return sorted((int(match[1]), int(match[2])) for match in matches if match)
