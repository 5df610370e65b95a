"""Compressed files: detection by content, several members, damage and decompression bombs."""

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from preprocess.reading import compression
from preprocess.reading.byte_range import DamagedFile
from preprocess.reading.compression import find_compression, unpack
from preprocess.reading.reader import Limits

Read = Callable[..., Any]  # fixture of conftest.py
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
SKIPPABLE = b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc"
TEXT = "".join(f"line {i} é\n" for i in range(3000))
ADVICE = "replace it with an intact copy, leave it out of the input, or keep what can be read with "


@pytest.mark.parametrize("kind", PACKERS)
def test_all_members_of_compressed_files_are_read_whatever_the_name(
    tmp_path: Path, read_file: Read, kind: str
) -> None:
    pack = PACKERS[kind]
    data = TEXT.encode()
    packed = pack(data[:7000]) + pack(b"") + pack(data[7000:]) + b"\0" * 8
    if kind == "zst":
        packed = SKIPPABLE + packed + SKIPPABLE
    for name in (f"a.txt.{kind}", "misnamed.txt"):
        for block_bytes in (16, 1 << 20):
            path = tmp_path / name
            path.write_bytes(packed)
            block, places = read_file(path, 1024, block_bytes)
            assert block.documents == TEXT.split("\n")[:-1]
            assert places[:2] == [f"{name}:0", f"{name}:10"]


def test_an_uncompressed_file_with_a_compressed_name_is_read_as_it_is(
    tmp_path: Path, read_file: Read
) -> None:
    for name, text in (("a.txt.gz", TEXT), ("a.bz2", "BZh9 is no magic\n"), ("a.zst", "P*M\n")):
        (tmp_path / name).write_text(text)
        assert read_file(tmp_path / name, 100)[0].documents == text.split("\n")[:-1]
    (tmp_path / "b.gz").write_bytes(b"")
    assert read_file(tmp_path / "b.gz")[0].documents == []


@pytest.mark.parametrize("kind", PACKERS)
def test_a_damaged_file_raises_with_advice_or_is_skipped(
    tmp_path: Path, read_file: Read, kind: str
) -> None:
    lines = TEXT + "".join(f"{one:032x}\n" for one in random.Random(0).randbytes(60_000))
    packed = PACKERS[kind](lines.encode())
    middle = len(packed) // 2
    damaged = {
        "this compressed file is truncated": packed[:middle],
        "damaged compressed file": packed[:middle] + b"\xff" * 8 + packed[middle + 8 :],
        "damaged compressed file .*": packed + b"garbage behind the end",
    }
    expected = lines.split("\n")
    for message, data in damaged.items():
        path = tmp_path / "bad"
        path.write_bytes(data)
        with pytest.raises(DamagedFile, match=f"bad: {message}.*; {ADVICE}prepare.damaged_files"):
            read_file(path)
        block, _ = read_file(path, limits=Limits(skip_damaged=True))
        (rejected,) = block.rejected
        assert (rejected.reason, rejected.where) == ("damaged_file", "bad")
        assert rejected.excerpt.startswith(f"bad: {message[:20]}")
        # The last bytes before the damage may be wrong, because their checksum was not reached.
        assert block.documents[:100] == expected[: len(block.documents)][:100]
        # bzip2 yields nothing of an incomplete block.
        assert len(block.documents) > 100 or kind == "bz2"


def test_a_zip_archive_is_refused(tmp_path: Path, read_file: Read) -> None:
    (tmp_path / "a.txt").write_bytes(b"PK\x03\x04...")
    with pytest.raises(DamagedFile, match=r"a\.txt: this is a zip file; unpack it, or use gzip"):
        read_file(tmp_path / "a.txt")


@pytest.mark.parametrize("kind", PACKERS)
def test_a_decompression_bomb_is_a_damaged_file_read_in_bounded_pieces(
    tmp_path: Path, read_file: Read, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "FREE_EXPANSION_BYTES", 2_000_000)
    path = tmp_path / "a"
    path.write_bytes(PACKERS[kind](b"ab\n" + bytes(30_000_000)))
    limits = Limits(max_expansion=100)
    message = (
        "a: unpacks to more than [23],.* bytes and 100 times its size; if it is intact, raise "
    )
    with pytest.raises(DamagedFile, match=f"{message}prepare.max_expansion; replace it"):
        read_file(path, limits=limits)
    block, _ = read_file(path, limits=Limits(1024, 100, skip_damaged=True))
    assert [one.reason for one in block.rejected] == ["damaged_file"]
    block, _ = read_file(path, limits=Limits(10_000_000, 1_000_000))
    assert [(one.reason, one.where) for one in block.rejected] == [("oversized", "a:3")]
    assert block.documents == ["ab"]


def test_a_highly_compressed_zstandard_block_comes_in_pieces() -> None:
    packed = PACKERS["zst"](bytes(100_000_000))
    found = find_compression(packed, "a")
    assert found
    sizes = [len(data) for data in unpack([packed], found, 4096, "a", len(packed), 10**6)]
    assert (sum(sizes), max(sizes) <= 17 << 20) == (100_000_000, True)


def test_jsonl_is_detected_inside_a_compressed_file(tmp_path: Path, read_file: Read) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(("\n" + json.dumps({"text": "x" * 9000}) + "\n").encode()))
    block, places = read_file(path, block_bytes=100)
    assert (block.documents, places) == (["x" * 9000], ["a.gz:1"])
