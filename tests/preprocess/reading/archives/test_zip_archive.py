"""Members of zip archives, read by ranges, and every fault."""

import gzip
import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import pytest
import zstandard

from preprocess.config import Source
from preprocess.files import storage
from preprocess.reading import compression
from preprocess.reading.archives import members, zip_directory
from preprocess.reading.byte_range import DamagedFile
from preprocess.reading.listing import list_source
from preprocess.reading.options import Limits
from preprocess.reading.reader import read_unit
from preprocess.reading.units import plan_units
from preprocess.text.config import CleaningConfig
from tests.preprocess.reading.archives.conftest import LINES, MEMBERS, SKIP, TEXTS, ReadArchive


def zipped(files: Mapping[str, bytes] = MEMBERS, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return buffer.getvalue()


def with_method(method: int, packed: bytes, data: bytes) -> bytes:
    """A zip archive with one member that zipfile cannot write."""
    made = bytearray(zipped({"a.txt": packed}, zipfile.ZIP_STORED))
    for mark, crc_at, method_at in ((b"PK\x03\x04", 14, 8), (b"PK\x01\x02", 16, 10)):
        at = made.index(mark)
        struct.pack_into("<H", made, at + method_at, method)
        struct.pack_into("<3L", made, at + crc_at, zlib.crc32(data), len(packed), len(data))
    return bytes(made)


@pytest.mark.parametrize("name", ["a.zip", "a.txt", "a.jsonl"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_members_are_read_by_their_content_in_any_range(
    name: str, method: int, read_archive: ReadArchive
) -> None:
    read = read_archive(zipped(method=method), name)
    assert read.texts == TEXTS
    assert read.places[:3] == [f"{name}/a.txt:0", f"{name}/a.txt:4", f"{name}/sub/b.jsonl:0"]
    assert read.rejected == [("not_text", f"{name}/image.txt")]


def test_an_archive_is_cut_and_each_member_belongs_to_one_range(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({f"{n}.txt": b"text %d" % n for n in range(200)}))
    source = Source(path=str(path))
    units = plan_units([source], [list_source(source)], 2048)
    assert len(units) > 8
    texts = [
        [text for block in read_unit(unit, source, CleaningConfig()) for text in block.documents]
        for unit in units
    ]
    assert [*chain(*texts)] == [f"text {n}" for n in range(200)]
    assert sum(map(bool, texts)) > 3


def test_the_directory_decides_about_order_and_size(read_archive: ReadArchive) -> None:
    # Sizes after the content, as a program writes that cannot go back.
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *position: int) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in MEMBERS.items():
            made.writestr(name, data)
    assert read_archive(pipe.getvalue()).texts == TEXTS
    with warnings.catch_warnings(), zipfile.ZipFile(buffer := io.BytesIO(), "w") as made:
        warnings.simplefilter("ignore")
        made.writestr("a", b"one")
        made.writestr("a", b"two")
        made.comment = b"PK\x05\x06" + b"c" * 100
    assert read_archive(buffer.getvalue()).texts == ["one", "two"]


@pytest.mark.parametrize("method", [20, 93])
def test_members_in_zstandard_are_read(method: int, read_archive: ReadArchive) -> None:
    assert read_archive(with_method(method, zstandard.compress(LINES), LINES)).texts == TEXTS[4:]


def test_a_text_named_like_an_archive_is_text(read_archive: ReadArchive) -> None:
    assert read_archive(LINES, "a.zip").texts == TEXTS[4:]
    assert read_archive(LINES, "a.zip", document="file").texts == [LINES.decode()[:-1]]
    assert read_archive(LINES, "a.tar").texts == TEXTS[4:]
    read = read_archive(zipped({"x": LINES, "y": LINES}), "a.zip", document="file")
    assert read.texts == [LINES.decode()[:-1]] * 2


def test_a_large_archive_has_numbers_of_64_bits(read_archive: ReadArchive) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name in ("a.txt", "b.txt"):
            with made.open(name, "w", force_zip64=True) as file:
                file.write(b"text")
    data = bytearray(buffer.getvalue())
    # As if each member were too large: zipfile writes these fields only for sizes above 4 GiB.
    at = data.index(b"PK\x01\x02")
    directory = b""
    for _ in range(2):
        entry = bytearray(data[at : at + 46 + 5])
        size, offset = (
            struct.unpack_from("<L", entry, 24)[0],
            struct.unpack_from("<L", entry, 42)[0],
        )
        struct.pack_into("<2L", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
        struct.pack_into("<H", entry, 30, 28)
        struct.pack_into("<L", entry, 42, 0xFFFFFFFF)
        directory += bytes(entry) + struct.pack("<2H3Q", 1, 24, size, size, offset)
        at += 46 + 5
    start = data.index(b"PK\x01\x02")
    end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, len(directory), start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + len(directory), 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)
    made64 = bytes(data[:start]) + directory + end + locator + last
    assert [one.filename for one in zipfile.ZipFile(io.BytesIO(made64)).infolist()] == [
        *("a.txt", "b.txt")
    ]
    assert read_archive(made64).texts == ["text", "text"]


def test_names_are_labels_only(read_archive: ReadArchive) -> None:
    names = {
        "../../x": "x",
        "/etc/y": "etc/y",
        "C:\\z\\a": "C:/z/a",
        "\u732b": "\u732b",
        "a\nb": "a\\nb",
    }
    read = read_archive(zipped(dict.fromkeys(names, b"text"), zipfile.ZIP_STORED))
    assert read.places == [f"a.archive/{name}:0" for name in names.values()]
    for raw, shown in {
        "\u00e9t\u00e9.txt".encode("cp437"): "\u00e9t\u00e9.txt",
        "\u4e2d\u6587.txt".encode("gbk"): "\u4e2d\u6587.txt".encode("gbk").decode("cp437"),
        "\u4e2d\u6587.txt".encode(): "\u4e2d\u6587.txt",
    }.items():
        plain = zipped({"x" * len(raw): b"text"}).replace(b"x" * len(raw), raw)
        assert read_archive(plain).places == [f"a.archive/{shown}:0"]


def test_links_are_counted_and_folders_are_not(read_archive: ReadArchive) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.mkdir("sub") if hasattr(made, "mkdir") else made.writestr("sub/", b"")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        made.writestr(link, "/etc/passwd")
    read = read_archive(buffer.getvalue())
    assert (read.texts, read.rejected) == ([], [("not_a_file", "a.archive/link")])


def test_an_empty_archive_has_nothing(read_archive: ReadArchive) -> None:
    assert read_archive(zipped({})) == ([], [], [], [])


@pytest.mark.parametrize(
    ("method", "flags", "problem"),
    [
        (0, 1, "this member of a zip archive is encrypted"),
        (14, 0, r"this member of a zip archive is compressed with LZMA \(14\)"),
        (77, 0, r"this member of a zip archive is compressed with an unknown method \(77\)"),
    ],
)
def test_members_that_cannot_be_unpacked_are_told(
    method: int, flags: int, problem: str, read_archive: ReadArchive
) -> None:
    data = bytearray(zipped({"a.txt": b"words", "b.txt": b"more"}, zipfile.ZIP_STORED))
    struct.pack_into("<2H", data, data.index(b"PK\x01\x02") + 8, flags, method)
    with pytest.raises(
        DamagedFile, match=rf"a\.archive/a\.txt: {problem}; unpack the archive, leave"
    ):
        read_archive(bytes(data))
    read = read_archive(bytes(data), limits=SKIP)
    assert (read.texts, read.rejected) == (["more"], [("damaged_file", "a.archive/a.txt")])


def test_a_damaged_member_is_counted_and_the_next_one_is_read(read_archive: ReadArchive) -> None:
    files = {"a.txt": LINES, "b.txt": b"more"}
    whole = zipped(files, zipfile.ZIP_STORED)
    damaged = whole.replace(b"line 7 ", b"line 8 ", 1)
    overlapping = bytearray(whole)
    second = overlapping.index(b"PK\x01\x02", overlapping.index(b"PK\x01\x02") + 1)
    struct.pack_into("<L", overlapping, second + 42, 5)
    misplaced = bytearray(whole)
    struct.pack_into("<L", misplaced, misplaced.index(b"PK\x01\x02") + 42, 1)
    packed = bytearray(zipped(files))
    packed[100] ^= 0xFF
    for data, problem, where in (
        (damaged, r"a\.txt: damaged member of a zip archive \(its checksum", "a.txt"),
        (overlapping, r"b\.txt: this member of a zip archive overlaps the one", "b.txt"),
        (misplaced, r"a\.txt: this member of a zip archive is not where", "a.txt"),
        (packed, r"a\.txt: damaged ", "a.txt"),
    ):
        with pytest.raises(DamagedFile, match=problem):
            read_archive(bytes(data))
        read = read_archive(bytes(data), limits=SKIP)
        assert read.rejected == [("damaged_file", f"a.archive/{where}")]
        assert ("more" in read.texts) == (where == "a.txt")


def test_a_truncated_archive_keeps_its_first_members(read_archive: ReadArchive) -> None:
    for data in (zipped()[:-40], zipped()[:-4], zipped()[:1200]):
        message = r"damaged zip archive \(it has no directory at its end, so it is truncated\); rep"
        with pytest.raises(DamagedFile, match=message):
            read_archive(data)
        read = read_archive(data, limits=SKIP)
        assert read.texts[:4] == TEXTS[:4]
        assert read.rejected[-1] == ("damaged_file", "a.archive")


@pytest.mark.parametrize(
    ("at", "value", "problem"),
    [
        (10, 7, "its directory has 5 members, but should have 7"),
        (12, 0xFFFFFF, "its directory is not where its end says"),
        (12, 99, "its directory is damaged"),
        (16, 3, "its directory is damaged"),
        (4, 2, "it is the last of several parts; join them"),
    ],
)
def test_a_damaged_directory_is_told(
    at: int, value: int, problem: str, read_archive: ReadArchive
) -> None:
    data = bytearray(zipped())
    struct.pack_into("<H" if at in (4, 10) else "<L", data, len(data) - 22 + at, value)
    with pytest.raises(DamagedFile, match=rf"damaged zip archive \({problem}"):
        read_archive(bytes(data))
    read = read_archive(bytes(data), limits=SKIP)
    assert (read.texts, read.rejected[-1]) == (TEXTS, ("damaged_file", "a.archive"))


def test_bombs_are_damaged_alone_and_together(
    read_archive: ReadArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "FREE_EXPANSION_BYTES", 100_000)
    line = b"words and more words\n"
    data = zipped({"a": line * 50_000, "b": b"text"})
    read = read_archive(data, once=True, limits=Limits(max_expansion=100, skip_damaged=True))
    assert (read.texts[-1], read.rejected) == ("text", [("damaged_file", "a.archive/a")])
    monkeypatch.setattr(members, "FREE_EXPANSION_BYTES", 100_000)
    data = zipped({str(n): line * 4_500 for n in range(9)})
    read = read_archive(data, once=True, limits=Limits(max_expansion=10, skip_damaged=True))
    assert ("damaged_file", "a.archive") in read.rejected


def test_a_zip_archive_inside_another_file_is_told(read_archive: ReadArchive) -> None:
    with pytest.raises(DamagedFile, match="this is a zip archive inside a compressed file; unpack"):
        read_archive(gzip.compress(zipped()))
    read = read_archive(zipped({"a.zip": zipped(), "b.txt": b"text"}))
    assert (read.texts, read.rejected) == (["text"], [("not_text", "a.archive/a.zip")])
    assert "this is a zip archive inside an archive; unpack the outer file" in read.messages[0]


def test_a_directory_is_read_once_and_in_parts(
    read_archive: ReadArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_directory, "_PART", 200)
    zip_directory._kept.clear()
    parsed: list[str] = []
    real = zip_directory._read
    monkeypatch.setattr(
        zip_directory,
        "_read",
        lambda stream, *rest: parsed.append(stream.path) or real(stream, *rest),
    )
    files = {f"{n}.txt": b"text %d" % n for n in range(100)}
    assert read_archive(zipped(files)).texts == [f"text {n}" for n in range(100)]
    assert len(parsed) == 1


def test_an_archive_in_a_store_is_read_in_ranges(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "sub", "a.zip"), zipped())
    source = Source(path=folder)
    units = plan_units([source], [list_source(source)], 1024)
    assert len(units) > 1
    read = [
        text
        for unit in units
        for block in read_unit(unit, source, CleaningConfig())
        for text in block.documents
    ]
    assert read == TEXTS
