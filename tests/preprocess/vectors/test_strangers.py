"""Vector caches of an untrusted source: hashes match, but the content is not valid."""

import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocess.errors import UserError
from preprocess.files.manifest import NAME, ManifestError, read_manifest, write_manifest
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.check import check_cache
from preprocess.vectors.codec import CacheError
from preprocess.vectors.files import CHECKED_ENTRY, checksum
from preprocess.vectors.shard import text_key

Rewrite = Callable[..., None]

LARGEST_MEMORY = 8 << 20
"""Bytes that reading a cache of a few kilobytes may allocate."""


def read_all(folder: Path) -> list[str]:
    """Read a cache in every way; return the messages, each once."""
    messages = []

    def tell(read: Callable[[], Any]) -> None:
        try:
            read()
        except KeyError:
            # An index that lacks a key is valid by itself; iteration notices it.
            pass
        except UserError as error:
            messages.append(str(error))

    try:
        cache = VectorCache.open(folder)
    except UserError as error:
        return [str(error)]
    with cache:
        for read in (
            lambda: [cache[f"text {n}"] for n in range(9)],
            lambda: [cache.tokens(f"text {n}") for n in range(9)],
            lambda: list(cache.entries()),
            lambda: list(cache),
            lambda: list(cache.blocks()),
            lambda: [cache.at(s, e) for n, s in enumerate(cache.shards) for e in range(cache.sizes[n])],
            lambda: cache.units,
        ):  # fmt: skip
            tell(read)
    assert all(str(folder) in message for message in messages)
    return list(dict.fromkeys(messages))


def refused(folder: Path) -> str:
    """Return the messages of reading a cache, which must be refused within `LARGEST_MEMORY`."""
    before = sorted(path.name for path in folder.parent.rglob("*"))
    tracemalloc.start()
    try:
        messages = read_all(folder)
        assert tracemalloc.get_traced_memory()[1] < LARGEST_MEMORY
    finally:
        tracemalloc.stop()
    assert messages
    assert check_cache(str(folder), read_manifest(str(folder))).damage
    assert sorted(path.name for path in folder.parent.rglob("*")) == before
    return "\n".join(messages)


@pytest.mark.parametrize("name", ["layers", "dim"])
@pytest.mark.parametrize(
    "value", [0, -1, 1, 3, 1 << 31, 1 << 62, 10**40, "2", 2.0, None, True, [2], {"a": 1}]
)
def test_a_shape_that_is_not_that_of_the_files_is_refused(
    tmp_path: Path, make_cache: Any, rewrite: Rewrite, name: str, value: Any
) -> None:
    folder = make_cache(tmp_path / "cache")
    rewrite(folder, **{name: value})
    assert "of the vector cache is damaged" in refused(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dtype", "float64"), ("dtype", "object"), ("dtype", ["<f2"]), ("dtype", "float32"),
        ("unit", 3), ("unit", "letter"), ("model", None), ("texts_kept", "yes"),
    ],
)  # fmt: skip
def test_details_of_another_type_are_refused(
    tmp_path: Path, make_cache: Any, rewrite: Rewrite, name: str, value: Any
) -> None:
    folder = make_cache(tmp_path / "cache")
    rewrite(folder, **{name: value})
    assert "is damaged" in refused(folder)


@pytest.mark.parametrize(("name", "value"), [("vectors", "all"), ("held", {})])
def test_details_that_no_embed_stage_writes_are_refused(
    tmp_path: Path, make_cache: Any, rewrite: Rewrite, name: str, value: Any
) -> None:
    folder = make_cache(tmp_path / "cache")
    rewrite(folder, **{name: value})
    with pytest.raises(ManifestError, match=f"cache: manifest.json is damaged \\('{name}': Input"):
        VectorCache.open(folder)


def change_rows(folder: Path, **columns: int) -> None:
    path = folder / "entries-000001-000.npy"
    rows = np.load(path).copy()
    for name, value in columns.items():
        rows[name][1] = value
    start = path.stat().st_size - rows.nbytes
    path.write_bytes(path.read_bytes()[:start] + rows.tobytes())


@pytest.mark.parametrize(
    "columns",
    [
        {"units": 0xFFFFFFFF}, {"units": 1}, {"units": 0}, {"offset": 1 << 63}, {"offset": 0},
        {"offset": 0xFFFFFFFFFFFFFFFF}, {"text": 1 << 63}, {"text": 0}, {"text": 1},
        {"vectors_hash": 1}, {"text_hash": 1}, {"offset": 3, "units": 3},
    ],
)  # fmt: skip
def test_rows_that_lead_elsewhere_are_refused(
    tmp_path: Path, make_cache: Any, rewrite: Rewrite, columns: dict[str, int]
) -> None:
    folder = make_cache(tmp_path / "cache")
    change_rows(folder, **columns)
    rewrite(folder)
    assert "000001-000" in refused(folder)


@pytest.mark.parametrize("row", [2, 3, 4])
@pytest.mark.parametrize("value", [0xFFFFFFFFFFFFFFFF, 1 << 32 | 99, 99 << 32, 7])
@pytest.mark.parametrize("former", [False, True])
def test_an_index_that_leads_elsewhere_is_refused(
    tmp_path: Path, make_cache: Any, rewrite: Rewrite, as_version_0_1: Any,
    row: int, value: int, former: bool,
) -> None:  # fmt: skip
    folder = make_cache(tmp_path / "cache")
    if former:
        as_version_0_1(folder)
    path = folder / ("index-0000.npy" if former else "index-0000-0000.npy")
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, 128 + 8 * row * (9 if former else 1), value)
    path.write_bytes(data)
    rewrite(folder)
    assert path.name in refused(folder) or "entries-00000" in refused(folder)


HEADERS = [
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<u8', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': %s, 'fortran_order': True, 'shape': (3,), }",
    "{'descr': %s, 'fortran_order': False, 'shape': (99999999999999999999,), }",
    "{'descr': %s, 'fortran_order': False, 'shape': (-3,), }",
    "{'descr': %s, 'fortran_order': False, 'shape': (), }",
    "{'descr': %s, 'fortran_order': False, 'shape': (3, 1), }",
    "{'descr': %s, 'fortran_order': False, 'shape': (2,), }",
    "{'descr': %s, 'fortran_order': False, 'shape': (4,), }",
    "(" * 4000,
    "-" * 4000 + "1",
    "__import__('os').system('true')",
    "\xff\x00",
    "",
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("length", [0, 1, -1, 60000])
@pytest.mark.parametrize("name", ["entries-000001-000.npy", "index-0000-0000.npy"])
def test_headers_of_npy_files_are_compared_not_interpreted(
    tmp_path: Path, make_cache: Any, rewrite: Rewrite, header: str, length: int, name: str
) -> None:
    folder = make_cache(tmp_path / "cache")
    path = folder / name
    data = path.read_bytes()
    end = 10 + int.from_bytes(data[8:10], "little")
    descr = repr(CHECKED_ENTRY.descr)
    text = (header.replace("%s", descr) + "\n").encode("latin-1")
    size = (len(text) + length) % 65536
    path.write_bytes(data[:8] + size.to_bytes(2, "little") + text + data[end:])
    rewrite(folder)
    assert f"{name} of the vector cache is damaged" in refused(folder)


TEXTS: list[bytes] = [
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a": 1}',
    b'["text 4"]',
    b'["text 4", "a", 1]',
    b'["text 4", "a", ["b"]]',
    b'[4, "a", "b"]',
    b'[["text 4", 3], "a", "b"]',
    b'["text 5", "a", "b"]',
    b'["text 4", "a", "b"',
    b'["text 4", "a", "\xff"]',
    b"1" * 5000,
    b"NaN",
    b"",
]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_of_another_form_are_refused(
    tmp_path: Path, make_cache: Any, rewrite: Rewrite, text: bytes
) -> None:
    folder = make_cache(tmp_path / "cache")
    name = "texts-000001-000.bin"
    data = (folder / name).read_bytes()
    rows = np.load(folder / "entries-000001-000.npy")
    start, end = int(rows["text"][1]), int(rows["text"][2])
    (folder / name).write_bytes(data[:start] + text + data[end:])
    change_rows(folder, text_hash=checksum(text_key("text 4"), text))
    later = np.load(folder / "entries-000001-000.npy").copy()
    later["text"][2] = start + len(text)
    path = folder / "entries-000001-000.npy"
    path.write_bytes(path.read_bytes()[: -later.nbytes] + later.tobytes())
    rewrite(folder)
    assert f"{name} of the vector cache is damaged (entry 1 does not match" in refused(folder)


def test_a_manifest_that_lists_other_files_is_refused(tmp_path: Path, make_cache: Any) -> None:
    folder = make_cache(tmp_path / "cache")
    manifest = json.loads((folder / NAME).read_text())
    del manifest["checksum"]
    manifest["format"] = 1
    listed = manifest["files"]

    def written(files: list[dict[str, Any]]) -> str:
        (folder / NAME).write_text(json.dumps({**manifest, "files": files}))
        return refused(folder)

    def changed(old: str, **columns: Any) -> list[dict[str, Any]]:
        return [one | columns if one["name"] == old else one for one in listed]

    vectors = "vectors-000001-000.bin"
    assert f"does not list {vectors}" in written([f for f in listed if f["name"] != vectors])
    assert "lists 0 indexes" in written([f for f in listed if "index" not in f["name"]])
    for name in ("entries-0000001-000.npy", "entries-٠٠٠٠٠٠-000.npy"):
        files = changed("entries-000001-000.npy", name=name)
        (folder / NAME).write_text(json.dumps({**manifest, "files": files}))
        cache = VectorCache.open(folder)
        assert cache.shards == [(0, 0), (2, 0)]
        with pytest.raises(CacheError, match=r"index-0000-0000\.npy|entries-00000"):
            list(cache)
    assert "says that entries-000001-000.npy has many" in written(
        changed("entries-000001-000.npy", entries="many")
    )
    assert "has 3 entries, its manifest says 4" in written(
        changed("entries-000001-000.npy", entries=4)
    )


@pytest.mark.parametrize("name", ["vectors-000001-000.bin", "index-0000-0000.npy"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused(
    tmp_path: Path, make_cache: Any, name: str, make: Callable[[Path], None]
) -> None:
    folder = make_cache(tmp_path / "cache")
    (folder / name).unlink()
    make(folder / name)
    assert f"{name} of the vector cache is damaged (it is not a regular file)" in refused(folder)


def test_a_manifest_with_two_models_is_refused(tmp_path: Path, make_cache: Any) -> None:
    folder = make_cache(tmp_path / "cache")
    manifest = replace(read_manifest(str(folder)), asked={"model.content": "m" * 63 + "n"})
    write_manifest(str(folder), manifest)
    assert "its manifest has two models" in refused(folder)


def test_an_index_of_an_older_generation_is_refused(
    tmp_path: Path, make_cache: Any, rewrite: Rewrite
) -> None:
    folder, other = make_cache(tmp_path / "cache"), make_cache(tmp_path / "other", shards=2)
    name = "index-0000-0000.npy"
    (folder / name).write_bytes((other / name).read_bytes())
    rewrite(folder, drop=("fences", "units"))
    assert name in refused(folder)


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 9), st.floats(0, 1), st.binary(min_size=1, max_size=12), st.booleans()
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("former", [False, True])
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=CHANGES)
def test_any_content_gives_a_message_or_a_result(
    tmp_path_factory: pytest.TempPathFactory,
    make_cache: Any,
    rewrite: Rewrite,
    as_version_0_1: Any,
    former: bool,
    changes: list[tuple[int, float, bytes, bool]],
) -> None:
    folder = make_cache(tmp_path_factory.mktemp("cache") / "cache")
    if former:
        as_version_0_1(folder)
    files = sorted(path for path in folder.iterdir() if path.name != NAME)
    for number, part, data, insert in changes:
        path = files[number % len(files)]
        old = path.read_bytes()
        at = int(part * len(old))
        path.write_bytes(old[:at] + data + old[at if insert else at + len(data) :])
    rewrite(folder)
    read_all(folder)
    check_cache(str(folder), read_manifest(str(folder)))
