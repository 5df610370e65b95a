"""URLs that name a file inside another one."""

import tarfile
import zipfile
from pathlib import Path

import pytest

from preprocess.files import storage
from preprocess.files.errors import DamagedArchive, StorageError
from preprocess.files.paths import Chained, overlap, split_chain
from preprocess.files.search.find import find_files

TEXTS = {"a.txt": b"aaa", "sub/b.txt": b"bbbb", "[D] x/c.txt": b"ccccc", ".d.txt": b"d"}


def make_zip(path: Path, texts: dict[str, bytes] = TEXTS) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in texts.items():
            archive.writestr(name, data)
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "a.txt")
    return path


def make_tar(path: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in TEXTS.items():
            file = path.with_name("member")
            file.write_bytes(data)
            archive.add(file, f"./{name}")
        link = tarfile.TarInfo("hard.txt")
        link.type, link.linkname = tarfile.LNKTYPE, "./sub/b.txt"
        archive.addfile(link)
        link = tarfile.TarInfo("soft.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "a.txt"
        archive.addfile(link)
    return path


def test_a_chain_is_split_into_protocol_member_and_outer_file() -> None:
    assert split_chain("zip://*.txt::/x/a.zip") == Chained("zip", "*.txt", "/x/a.zip")
    assert split_chain("zip://b::zip://a::s3://x") == Chained("zip", "b", "zip://a::s3://x")
    cached = split_chain("simplecache::/x/a")
    assert cached == Chained("simplecache", "", "/x/a")
    assert str(cached) == "simplecache::file:///x/a"
    for path in ("s3://bucket/a::b.txt", "/x/a::b", "a::b", "file:///x", "https://x/?a::b"):
        assert split_chain(path) is None


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a", "a/", True),
        ("a", "a/b/c", True),
        ("link/b", "a", True),
        ("link", "c", False),
        ("a", "ab", False),
        ("./x/../a", "file://{here}/a", True),
        ("s3://x/a", "s3://x/a/b/", True),
        ("s3://x/a", "s3://x/ab", False),
        ("s3://x/a", "a", False),
    ],
)
def test_folders_overlap_if_one_is_the_other_or_lies_in_it(
    one: str, other: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("a")
    other = other.format(here=tmp_path)
    assert (overlap(one, other), overlap(other, one)) == (expected, expected)


@pytest.mark.parametrize(
    "path", ["zip::a.zip", "zip://::a", "simplecache://a::b", "gzip://a::b.gz", "dir::s3://x"]
)
def test_a_chain_that_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(StorageError, match="a URL that is chained like this cannot be read; write"):
        find_files(path)


@pytest.mark.parametrize("kind", ["zip", "w:", "w:gz", "w:bz2", "w:xz"])
def test_members_of_an_archive_are_listed_and_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "archive::of #1?.bin"
    make_zip(path) if kind == "zip" else make_tar(path, kind)
    protocol = "zip" if kind == "zip" else "tar"
    hard = {} if kind == "zip" else {"hard.txt": b"bbbb"}
    found = find_files(f"{protocol}://**::{path}")
    visible = {name: data for name, data in TEXTS.items() if name[0] != "."} | hard
    assert [file.name for file in found] == sorted(visible)
    for file in found:
        assert storage.read_bytes(file.path) == visible[file.name]
        assert storage.read_bytes(file.path, 1, 3) == visible[file.name][1:3]
        assert storage.exists(file.path)
        with storage.open_read(file.path) as stream:
            stream.seek(2)
            assert stream.read() == visible[file.name][2:]
            stream.seek(0)
            assert stream.read(1) == visible[file.name][:1]
    for pattern, names in {
        "*.txt": sorted(name for name in visible if "/" not in name),
        "[D] x/*.txt": ["c.txt"],
        "[D] x/c.txt": ["c.txt"],
        "sub/b.txt": ["b.txt"],
        ".*": [".d.txt"],
    }.items():
        assert [f.name for f in find_files(f"{protocol}://{pattern}::{path}")] == names
    with pytest.raises(StorageError, match="no file matches"):
        find_files(f"{protocol}://*.csv::{path}")


def test_a_relative_archive_is_read_from_every_folder_and_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_zip(tmp_path / "a.zip", {"a.txt": b"old"})
    (found,) = find_files("zip://*.txt::a.zip")
    assert found.version == find_files("a.zip")[0].version
    monkeypatch.chdir("/")
    assert storage.read_bytes(found.path) == b"old"
    make_zip(tmp_path / "a.zip", {"a.txt": b"newer"})
    (found,) = find_files(f"zip://*.txt::{tmp_path}/a.zip")
    assert (found.bytes, storage.read_bytes(found.path)) == (5, b"newer")


def test_members_of_several_archives_have_the_names_of_the_archives(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_zip(tmp_path / f"{name}.zip", {"a.txt": name.encode()})
    found = find_files(f"zip://*.txt::{tmp_path}/*.zip")
    assert [(f.name, storage.read_bytes(f.path)) for f in found] == [
        ("one.zip/a.txt", b"one"),
        ("two.zip/a.txt", b"two"),
    ]


def test_archives_in_archives_in_stores_and_behind_caches_are_read(
    tmp_path: Path, folder: str
) -> None:
    inner = make_zip(tmp_path / "in.zip", {"a.txt": b"deep"}).read_bytes()
    outer = make_zip(tmp_path / "out.zip", {"in.zip": inner}).read_bytes()
    storage.write_bytes(storage.join(folder, "out.zip"), outer)
    for prefix in ("", "simplecache::"):
        (found,) = find_files(f"zip://*.txt::zip://in.zip::{prefix}{folder}/out.zip")
        assert (found.name, storage.read_bytes(found.path)) == ("a.txt", b"deep")
    (found,) = find_files(f"simplecache::{folder}/*.zip")
    assert storage.read_bytes(found.path) == outer


def test_damaged_and_encrypted_archives_are_reported(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_bytes(b"no archive at all")
    for protocol in ("zip", "tar"):
        with pytest.raises(
            StorageError, match=rf"text.zip: cannot be read as a {protocol} archive"
        ):
            find_files(f"{protocol}://*::{tmp_path}/text.zip")
    path = make_zip(tmp_path / "a.zip", {"a.txt": bytes(range(256)) * 9})
    (found,) = find_files(f"zip://a*::{path}")
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    find_files(f"zip://a*::{path}")
    with pytest.raises(DamagedArchive):
        storage.read_bytes(found.path)
    data[6] |= 1  # the flag of encryption, in both headers
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    find_files(f"zip://a*::{path}")
    with pytest.raises(DamagedArchive, match="password"):
        storage.read_bytes(found.path)
    path.unlink()
    with pytest.raises(StorageError, match="no such file"):
        find_files(f"zip://a*::{path}")


def test_a_member_whose_name_would_end_the_chain_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a::b.txt": b"", "c.txt": b""})
    assert len(find_files(f"zip://c*::{path}")) == 1
    with pytest.raises(StorageError, match=r"the name of 'a::b.txt' in it has '::'.*unpack"):
        find_files(f"zip://*::{path}")
