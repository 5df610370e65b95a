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

from preprocess.errors import UserError
from preprocess.reading import compression
from preprocess.reading.byte_range import DamagedFile, UnreadableFile
from preprocess.reading.compression import (
    available_memory,
    compression_name,
    find_compression,
    unpack,
)
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


def test_a_compression_has_a_name() -> None:
    names = {kind: compression_name(pack(b"text")) for kind, pack in PACKERS.items()}
    assert names == {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "Zstandard"}
    assert compression_name(SKIPPABLE) == "Zstandard"
    assert compression_name(b"text") == compression_name(b"") == ""


def test_an_uncompressed_file_with_a_compressed_name_is_read_as_it_is(
    tmp_path: Path, read_file: Read
) -> None:
    for name, text in (("a.txt.gz", TEXT), ("a.bz2", "BZh9 is no magic\n"), ("a.zst", "P*M\n")):
        (tmp_path / name).write_text(text)
        assert read_file(tmp_path / name, 100)[0].documents == text.split("\n")[:-1]


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


@pytest.mark.parametrize("kind", PACKERS)
def test_damage_in_the_first_bytes_comes_after_what_could_be_read(
    tmp_path: Path, read_file: Read, kind: str
) -> None:
    packed = PACKERS[kind](b"one\ntwo\n")
    (tmp_path / "a").write_bytes(packed + packed[:-1])
    block, _ = read_file(tmp_path / "a", limits=Limits(skip_damaged=True))
    assert block.documents[:2] == ["one", "two"]
    assert [one.reason for one in block.rejected] == ["damaged_file"]


def long_window(data: bytes, log: int) -> bytes:
    """Compress with a window of 2**log bytes, which the frame's header states."""
    settings = zstandard.ZstdCompressionParameters(window_log=log, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    return packer.compress(data) + packer.flush()


def test_a_zstandard_file_with_a_long_window_is_read(tmp_path: Path, read_file: Read) -> None:
    packed = long_window(TEXT.encode(), 28)
    (tmp_path / "a.zst").write_bytes(SKIPPABLE + packed + PACKERS["zst"](b"") + packed)
    for block_bytes in (1, 5, 1 << 20):
        block, _ = read_file(tmp_path / "a.zst", block_bytes=block_bytes)
        assert block.documents == TEXT.split("\n")[:-1] * 2


def test_a_window_that_memory_does_not_allow_stops_also_if_damaged_files_are_skipped(
    tmp_path: Path, read_file: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "available_memory", lambda: 500_000_000)
    (tmp_path / "a.zst").write_bytes(long_window(TEXT.encode(), 28))
    message = (
        r"a\.zst: this Zstandard file needs a window of 0\.27 GB of memory, but 0\.50 GB are "
        r"available, and one file may use half of it; recompress it with a smaller window \(zstd "
        r"-d --long=31, then zstd without --long\), or use a machine with more memory"
    )
    for skip in (False, True):
        with pytest.raises(UserError, match=message):
            read_file(tmp_path / "a.zst", limits=Limits(skip_damaged=skip))
    (tmp_path / "a.zst").write_bytes(long_window(TEXT.encode(), 27))
    assert len(read_file(tmp_path / "a.zst")[0].documents) == 3000


def test_a_file_that_needs_a_dictionary_is_not_called_damaged(
    tmp_path: Path, read_file: Read
) -> None:
    samples = [f"line {i} of {i * i} with words {i % 7}\n".encode() for i in range(4000)]
    dictionary = zstandard.train_dictionary(4096, samples, dict_id=77)
    packed = zstandard.ZstdCompressor(dict_data=dictionary).compress(TEXT.encode())
    (tmp_path / "a.zst").write_bytes(packed)
    with pytest.raises(
        UnreadableFile, match=r"needs the dictionary 77 to be .*; decompress it with"
    ):
        read_file(tmp_path / "a.zst")


def test_a_window_that_the_library_does_not_read_is_an_unreadable_file(
    tmp_path: Path, read_file: Read
) -> None:
    # A frame header whose window descriptor is 2**35.
    (tmp_path / "a.zst").write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes([(35 - 10) << 3]) + bytes(20))
    message = r"needs a window of 34\.36 GB of memory, but at most 2\.15 GB can be read; recompress"
    with pytest.raises(UnreadableFile, match=message):
        read_file(tmp_path / "a.zst")
    block, _ = read_file(tmp_path / "a.zst", limits=Limits(skip_damaged=True))
    assert [one.reason for one in block.rejected] == ["damaged_file"]


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 4096_000),
        ({"memory.max": "max", "memory.current": "5"}, 4096_000),
        ({"memory.max": "2000000", "memory.current": "1500000"}, 500_000),
        (
            {
                "memory.max": "2000000",
                "memory.current": "1500000",
                "memory.stat": "anon 7\ninactive_file 1000",
            },
            501_000,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "300000",
                "memory/memory.usage_in_bytes": "400000",
                "memory/memory.stat": "total_inactive_file 1",
            },
            0,
        ),
    ],
)
def test_available_memory_respects_the_limit_of_a_container(
    tmp_path: Path, files: dict[str, str], free: int
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_memory(tmp_path) == free
    assert available_memory(tmp_path / "nothing") > 1 << 20


@pytest.mark.parametrize("kind", PACKERS)
def test_a_decompression_bomb_is_a_damaged_file_read_in_bounded_pieces(
    tmp_path: Path, read_file: Read, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "FREE_EXPANSION_BYTES", 2_000_000)
    path = tmp_path / "a"
    path.write_bytes(PACKERS[kind](b"ab\n" + b"x" * 30_000_000))
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
    found = find_compression(packed)
    assert found
    sizes = [len(data) for data in unpack([packed], found, 4096, "a", len(packed), 10**6)]
    assert (sum(sizes), max(sizes) <= 17 << 20) == (100_000_000, True)


def test_jsonl_is_detected_inside_a_compressed_file(tmp_path: Path, read_file: Read) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(("\n" + json.dumps({"text": "x" * 9000}) + "\n").encode()))
    block, places = read_file(path, block_bytes=100)
    assert (block.documents, places) == (["x" * 9000], ["a.gz:1"])
