"""The files with the keys of documents: what is written is read, and damage is found."""

import json

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.shards.document_keys import DocumentKeys, DocumentKeysError, name_of


def keys_of(documents: int, bands: int = 0, first: int = 0, seed: int = 1) -> DocumentKeys:
    draw = np.random.default_rng(seed)
    near = (
        draw.integers(0, 2**32, (documents, bands), np.uint32),
        draw.integers(0, 2**64, (documents, 4), np.uint64),
    )
    hashes = draw.integers(0, 2**64, documents, np.uint64)
    return DocumentKeys.of(first, hashes, near if bands else None)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 12), st.integers(0, 2**32 - 60), st.data())
def test_what_is_written_is_read(
    documents: int, bands: int, first: int, data: st.DataObject
) -> None:
    dropped = data.draw(st.sets(st.integers(first, first + 49)))
    keys = keys_of(documents, bands, first).without(np.array(sorted(dropped), np.uint32))
    read = DocumentKeys.decode(keys.encode(), "file")
    assert read.numbers.tolist() == [n for n in range(first, first + documents) if n not in dropped]
    for name in ("numbers", "hashes", "bands", "sketches"):
        one, other = getattr(keys, name), getattr(read, name)
        assert one.tolist() == other.tolist()
        assert one.dtype == other.dtype
        assert one.shape == other.shape


@pytest.mark.parametrize(("bands", "most"), [(0, 8.2), (10, 8 + 40 + 32 + 0.2)])
def test_a_document_takes_few_bytes(bands: int, most: float) -> None:
    keys = keys_of(100_000, bands).without(np.arange(0, 100_000, 7, dtype=np.uint32))
    assert len(keys.encode()) / len(keys.numbers) < most


@pytest.mark.parametrize("cut", [0, 3, 40, -1])
def test_a_truncated_file_is_damaged(cut: int) -> None:
    with pytest.raises(DocumentKeysError, match=r"^FILE is damaged .*--overwrite$"):
        DocumentKeys.decode(keys_of(20, 3).encode()[:cut], "FILE")


@pytest.mark.parametrize(
    ("head", "body", "reason"),
    [
        ({"format": 1, "documents": 2, "bands": 0}, bytes(23), "buffer|columns"),
        ({"format": 1, "documents": 2, "bands": 0}, bytes(25), "do not fit"),
        ({"format": 1, "documents": -1, "bands": 0}, b"", "whole numbers"),
        ({"format": 1, "documents": 1.0, "bands": 0}, b"", "whole numbers"),
        ({"format": 1, "documents": 2, "bands": 0}, bytes(24), "not in order"),
        ({"format": 1, "bands": 0}, b"", "documents"),
        ([], b"", "indices"),
    ],
)
def test_columns_that_do_not_fit_are_damage(head: object, body: bytes, reason: str) -> None:
    data = zstandard.ZstdCompressor().compress(json.dumps(head).encode() + b"\n" + body)
    with pytest.raises(DocumentKeysError, match=reason):
        DocumentKeys.decode(data, "FILE")


def test_a_newer_format_is_told() -> None:
    data = zstandard.ZstdCompressor().compress(b'{"format": 2}\n')
    with pytest.raises(DocumentKeysError, match=r"^FILE: has format 2, .* up to 1; upgrade biloom"):
        DocumentKeys.decode(data, "FILE")


def test_names_are_those_of_the_segment() -> None:
    assert name_of(12, 3) == "keys-000012-003"
