"""Members of tar archives: any form, any packing, and every fault."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
from collections.abc import Mapping

import pytest
import zstandard

from preprocess.reading import compression
from preprocess.reading.archives import sequential
from preprocess.reading.byte_range import DamagedFile
from preprocess.reading.options import Limits
from tests.preprocess.reading.archives.conftest import MEMBERS, SKIP, TEXTS, ReadArchive

PACKERS = {
    "a.tar": bytes,
    "a.tar.gz": gzip.compress,
    "a.tgz": gzip.compress,
    "a.tar.bz2": bz2.compress,
    "a.tar.xz": lzma.compress,
    "a.tar.zst": zstandard.ZstdCompressor().compress,
    "a.txt": bytes,
    "a.jsonl.gz": gzip.compress,
}


def tar(members: Mapping[str, bytes] = MEMBERS, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as made:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def old_tar() -> bytes:
    """A tar archive of version 7, which has no magic number."""
    data = bytearray(tar(form=tarfile.USTAR_FORMAT))
    for at in range(0, len(data), 512):
        if data[at + 257 : at + 262] == b"ustar":
            header = data[at : at + 512]
            header[257:] = bytes(255)
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            data[at : at + 512] = header
    return bytes(data)


@pytest.mark.parametrize("name", PACKERS)
def test_members_are_read_by_their_content_whatever_holds_them(
    name: str, read_archive: ReadArchive
) -> None:
    read = read_archive(PACKERS[name](tar()), name)
    assert read.texts == TEXTS
    assert read.places[:4] == [
        *(f"{name}/a.txt:0", f"{name}/a.txt:4"),
        *(f"{name}/sub/b.jsonl:0", f"{name}/sub/b.jsonl:18"),
    ]
    assert read.rejected == [("not_text", f"{name}/image.txt")]
    assert read.messages[0].startswith(
        f"{name}/image.txt: this is an image; extract its text, leave"
    )


@pytest.mark.parametrize(
    "form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, None]
)
def test_every_form_of_tar_is_read(form: int | None, read_archive: ReadArchive) -> None:
    assert read_archive(old_tar() if form is None else tar(form=form)).texts == TEXTS


def test_a_member_is_read_like_a_file(read_archive: ReadArchive) -> None:
    utf16 = "\ufeffgr\u00fc\u00df\nzwei\n".encode("utf-16-le")
    members = {
        "a.txt.gz": gzip.compress(b"packed\n"),
        "b.txt": utf16,
        "c.jsonl": b'{"body": "object", "id": 7}\n',
        "d.zip": tar({"x.txt": b"inner\n"}),
        "e.txt": "pr\u00e9s\n".encode("cp1252"),
    }
    read = read_archive(tar(members), text_field="body", id_field="id", encoding="cp1252")
    assert read.texts == ["packed", "gr\u00fc\u00df", "zwei", "object", "pr\u00e9s"]
    assert read.places[3] == "a.archive/c.jsonl:0 id=7"
    assert read.rejected == [("not_text", "a.archive/d.zip")]
    assert "this is a tar archive inside an archive; unpack the outer file, " in read.messages[0]
    assert read_archive(tar({"a.txt": b"a\n\nb\n"}), document="file").texts == ["a\n\nb"]


def test_a_parquet_file_in_an_archive_is_read(read_archive: ReadArchive) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    sink = io.BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"text": ["x", "y"]}), sink)
    read = read_archive(tar({"a.parquet": sink.getvalue(), "b.txt": b"z"}))
    assert read.texts == ["x", "y", "z"]
    assert read.places[1] == "a.archive/a.parquet:row 1"


def test_names_are_labels_only(read_archive: ReadArchive) -> None:
    long = "d/" * 60 + "n" * 150
    names = ["../../x", "/etc/passwd", "./a/../b", "li\nne", "\u732b.txt", long]
    expected = ["x", "etc/passwd", "a/b", "li\\nne", "\u732b.txt", long]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        read = read_archive(tar(dict.fromkeys(names, b"text"), form))
        assert read.places == [f"a.archive/{name}:0" for name in expected]
    gbk = tar({"xxxx.txt": b"text"}, tarfile.GNU_FORMAT)
    header = bytearray(gbk[:512])
    header[0:4] = "\u4e2d\u6587".encode("gbk")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    read = read_archive(bytes(header) + gbk[512:])
    assert read.places == ["a.archive/\\udcd6\\udcd0\\udcce\\udcc4.txt:0"]


def test_links_and_devices_are_counted_and_folders_are_not(read_archive: ReadArchive) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, kind in {
            **{"sub": tarfile.DIRTYPE, "soft": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE},
            **{"tty": tarfile.CHRTYPE, "disk": tarfile.BLKTYPE, "pipe": tarfile.FIFOTYPE},
        }.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            made.addfile(entry)
    read = read_archive(buffer.getvalue())
    names = ("soft", "hard", "tty", "disk", "pipe")
    assert read.rejected == [("not_a_file", f"a.archive/{name}") for name in names]
    assert read.messages[0] == "a.archive/soft: this is a symbolic link, which is not read"


def test_two_members_of_one_name_are_both_read(read_archive: ReadArchive) -> None:
    data = tar({"a": b"one"})[:1024] + tar({"a": b"two"})
    assert read_archive(data).texts == ["one", "two"]


def test_archives_that_were_joined_are_read_to_the_end(read_archive: ReadArchive) -> None:
    data = tar({"a": b"one"}) + tar({"b": b"two"})
    assert read_archive(data).texts == ["one", "two"]


def test_an_empty_archive_has_nothing(read_archive: ReadArchive) -> None:
    for name, pack in PACKERS.items():
        if ".t" in name and name != "a.txt":
            assert read_archive(pack(tar({})), name) == ([], [], [], [])


def test_a_sparse_member_has_zeros_in_its_holes(read_archive: ReadArchive) -> None:
    # The layout of GNU tar: a map of (offset, size) of the data, and the size of the whole file.
    entry = tarfile.TarInfo("a.txt")
    entry.type, entry.size = tarfile.GNUTYPE_SPARSE, 1024
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    for at, number in ((386, 0), (398, 512), (410, 2048), (422, 512), (483, 3000)):
        header[at : at + 12] = b"%011o\0" % number
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + (b"a" * 511 + b"\n") + (b"b" * 511 + b"\n") + bytes(1024)
    read = read_archive(data, document="file", format="text")
    (text,) = read.texts
    assert text == "a" * 511 + "\n" + "\0" * 1536 + "b" * 511 + "\n" + "\0" * 440


@pytest.mark.parametrize(
    ("data", "problem", "texts"),
    [
        (tar()[:9000], "it ends inside the member lines", 4),
        (tar()[:1024], "it ends without an end mark", 2),
        (tar()[:1536], r"it ends inside the member sub/b\.jsonl", 2),
        (tar()[:1100], "at byte 1,024: truncated header", 2),
        (tar()[:1024] + b"x" * 4096, "at byte 1,024: ", 2),
        (tar() + b"x" * 1024, "at byte 20,480: ", len(TEXTS)),
    ],
)
def test_what_comes_before_a_fault_is_kept_if_damaged_files_are_skipped(
    data: bytes, problem: str, texts: int, read_archive: ReadArchive
) -> None:
    message = rf"damaged tar archive \({problem}.*\); replace it with an intact copy, leave it out"
    with pytest.raises(DamagedFile, match=message):
        read_archive(data)
    read = read_archive(data, limits=SKIP)
    assert read.texts[:4] == TEXTS[: min(4, texts)]
    assert read.rejected[-1] == ("damaged_file", "a.archive")
    # The bytes of a cut gzip file are damaged, not the tar archive in it.
    packed = gzip.compress(tar())
    with pytest.raises(DamagedFile, match="this compressed file is truncated"):
        read_archive(packed[:-20])
    assert read_archive(packed[:-20], limits=SKIP).rejected[-1] == ("damaged_file", "a.archive")


def test_a_damaged_member_is_counted_and_the_next_one_is_read(read_archive: ReadArchive) -> None:
    data = tar({"a.gz": gzip.compress(b"words\n" * 99)[:-9], "b.txt": b"more"})
    with pytest.raises(DamagedFile, match=r"a\.archive/a\.gz: this compressed file is truncated"):
        read_archive(data)
    read = read_archive(data, limits=SKIP)
    assert read.texts[-1] == "more"
    assert read.rejected == [("damaged_file", "a.archive/a.gz")]


def test_a_header_that_claims_gigabytes_is_not_read_into_memory(
    read_archive: ReadArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    with pytest.raises(DamagedFile, match="a header of 8,589,934,592 bytes"):
        read_archive(entry.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    monkeypatch.setattr(sequential, "MOST_AT_ONCE", 1024)
    with pytest.raises(DamagedFile, match=r"a header of 1,\d\d\d bytes"):
        read_archive(tar({"n" * 1200: b""}, tarfile.GNU_FORMAT))


def test_bombs_are_damaged_alone_and_together(
    read_archive: ReadArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "FREE_EXPANSION_BYTES", 100_000)
    limits = Limits(max_expansion=100, skip_damaged=True)
    line = b"words and more words\n"
    one = {"a.gz": gzip.compress(line * 50_000), "b.txt": b"text"}
    read = read_archive(tar(one), limits=limits, once=True)
    assert read.texts[-1] == "text"
    assert read.rejected == [("damaged_file", "a.archive/a.gz")]
    assert "unpacks to more than" in read.messages[0]
    # Each of them may unpack to 100,000 bytes, but not all of them.
    monkeypatch.setattr("preprocess.reading.archives.members.FREE_EXPANSION_BYTES", 100_000)
    several = {f"{n}.gz": gzip.compress(line * 4_500) for n in range(9)}
    read = read_archive(tar(several), once=True, limits=Limits(max_expansion=10, skip_damaged=True))
    assert 4_000 < len(read.texts) < 5_000
    assert read.rejected == [("damaged_file", "a.archive")]


def test_damage_right_after_the_start_of_a_member_is_that_of_the_archive(
    read_archive: ReadArchive,
) -> None:
    noise = random.Random(3).randbytes(50_000)
    packed = gzip.compress(tar({"a.txt": b"one\n", "image": b"\x89PNG\r\n\x1a\n" + noise}))
    with pytest.raises(DamagedFile, match=r"a\.archive: this compressed file is truncated"):
        read_archive(packed[:-20_000])
    read = read_archive(packed[:-20_000], limits=SKIP)
    assert read.texts == ["one"]
    assert read.rejected == [
        *(("not_text", "a.archive/image"), ("damaged_file", "a.archive")),
    ]
