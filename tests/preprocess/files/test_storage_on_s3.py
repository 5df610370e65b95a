"""The storage on a real object-store protocol: S3 as moto's server speaks it."""

import errno
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from preprocess.files import exclusive, storage
from preprocess.files.exclusive import create_exclusive, update_exclusive
from preprocess.files.search.find import find_files
from preprocess.work.aside import move_aside

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    import s3fs

    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = pytest.MonkeyPatch()
    environment.setenv("FSSPEC_S3_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.setenv(name, "test")
    environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import fsspec.config

    fsspec.config.set_conf_env(fsspec.config.conf)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("corpora")
    yield "s3://corpora"
    fsspec.config.conf.pop("s3", None)
    s3fs.S3FileSystem.clear_instance_cache()
    environment.undo()
    server.stop()


def test_what_is_written_is_read_back_whole_and_in_ranges(bucket: str) -> None:
    path = f"{bucket}/a/b.bin"
    storage.write_bytes(path, b"0123456789")
    assert storage.read_bytes(path) == b"0123456789"
    assert storage.read_bytes(path, 2, 5) == b"234"
    assert storage.list_names(f"{bucket}/a") == ["b.bin"]


def test_a_writer_that_raises_publishes_nothing(bucket: str) -> None:
    path = f"{bucket}/raising/part.bin"
    with pytest.raises(RuntimeError), storage.atomic_writer(path) as file:  # noqa: PT012
        file.write(b"half")
        raise RuntimeError
    assert not storage.exists(path)


def test_a_killed_upload_leaves_no_data_on_the_disk(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is uploaded lies in a file without a name."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path, size = f"{bucket}/upload.bin", 1 << 20
    with storage.atomic_writer(path) as file:
        file.write(bytes(size))
        assert [one.is_dir() for one in tmp_path.rglob("*")] == [True]
    assert storage.read_bytes(path, size - 2) == bytes(2)
    assert not list(tmp_path.iterdir())


def test_a_glob_finds_files_with_names_below_its_fixed_part(bucket: str) -> None:
    for name in ("x/1.txt", "x/y/2.txt", "x/3.bin"):
        storage.write_bytes(f"{bucket}/glob/{name}", b"text")
    found = find_files(f"{bucket}/glob/**/*.txt")
    assert [(file.name, file.path) for file in found] == [
        ("x/1.txt", f"{bucket}/glob/x/1.txt"),
        ("x/y/2.txt", f"{bucket}/glob/x/y/2.txt"),
    ]


def test_wildcards_match_as_on_a_local_disk(bucket: str) -> None:
    import s3fs

    folder = f"{bucket}/shell"
    for name in ("[D] x/a.txt", "D x/b.txt", ".c.txt", ".d/e.txt", "f/.g/h.txt", "f/i#?%::.txt"):
        storage.write_bytes(f"{folder}/{name}", name.encode())
    # Objects of no bytes that stand for folders, as web consoles make them.
    client = s3fs.S3FileSystem()
    for name in ("shell/", "shell/f/", "shell/marker.txt/"):
        client.call_s3("put_object", Bucket="corpora", Key=name, Body=b"")
    for pattern, names in {
        "[D] x/*.txt": ["a.txt"],
        "[D]?x/*.txt": ["D x/b.txt"],
        "*/*.txt": ["D x/b.txt", "[D] x/a.txt", "f/i#?%::.txt"],
        "**": ["D x/b.txt", "[D] x/a.txt", "f/i#?%::.txt"],
        "f/*": ["i#?%::.txt"],
        "f/i#?%::.txt": ["i#?%::.txt"],
        ".*": [".c.txt"],
        "**/.g/*": ["f/.g/h.txt"],
    }.items():
        found = find_files(f"{folder}/{pattern}")
        assert [file.name for file in found] == names
        for file in found:
            assert storage.read_bytes(file.path).decode().endswith(file.name)
            assert storage.read_bytes(file.path, 1, 2) == storage.open_read(file.path).read()[1:2]


def test_a_change_at_equal_size_has_another_version(bucket: str) -> None:
    versions = set()
    for data in (b"one", b"two"):
        storage.write_bytes(f"{bucket}/version/a.txt", data)
        versions.add(find_files(f"{bucket}/version/*.txt")[0].version)
        versions.add(find_files(f"{bucket}/version/a.txt")[0].version)
    assert len(versions) == 2


def test_a_folder_moves_aside_and_is_removed(bucket: str) -> None:
    for name in ("manifest.json", "data.bin", "_work/unit.json"):
        storage.write_bytes(f"{bucket}/stage/{name}", name.encode())
    assert move_aside(f"{bucket}/stage") == f"{bucket}/stage.old-1"
    assert not storage.exists(f"{bucket}/stage/manifest.json")
    assert storage.read_bytes(f"{bucket}/stage.old-1/_work/unit.json") == b"_work/unit.json"
    storage.remove_tree(f"{bucket}/stage.old-1")
    assert not storage.exists(f"{bucket}/stage.old-1")


def test_a_copy_is_the_same_bytes(bucket: str) -> None:
    storage.write_bytes(f"{bucket}/copy/a.bin", b"bytes")
    storage.copy(f"{bucket}/copy/a.bin", f"{bucket}/copy/b.bin")
    assert storage.read_bytes(f"{bucket}/copy/b.bin") == b"bytes"


@pytest.mark.parametrize(
    ("environment", "options", "expected"),
    [
        ({}, {}, {"mode": "standard", "total_max_attempts": 10}),
        ({"AWS_MAX_ATTEMPTS": "4"}, {}, {"mode": "standard", "total_max_attempts": 4}),
        ({"AWS_RETRY_MODE": "adaptive"}, {}, {"mode": "adaptive", "total_max_attempts": 10}),
        ({}, {"retries": {"max_attempts": 2}}, {"mode": "legacy", "total_max_attempts": 3}),
        ({}, {"read_timeout": 7}, {"mode": "standard", "total_max_attempts": 10}),
    ],
)
def test_the_client_repeats_requests_unless_told_otherwise(
    environment: dict[str, str],
    options: dict[str, Any],
    expected: dict[str, Any],
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fsspec.config
    import s3fs

    for name in ("AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    conf = {**fsspec.config.conf["s3"], "config_kwargs": options}
    monkeypatch.setitem(fsspec.config.conf, "s3", conf)
    s3fs.S3FileSystem.clear_instance_cache()
    config = storage.open_remote(bucket)[0].connect().meta.config
    s3fs.S3FileSystem.clear_instance_cache()
    assert config.retries == expected
    assert config.read_timeout == options.get("read_timeout", 15)


# Exclusive files


def test_one_of_two_observers_changes_a_file(bucket: str) -> None:
    """The store refuses the second write, because the file has changed since it was read."""
    path = f"{bucket}/exclusive/lock"
    assert create_exclusive(path, b"old")
    assert not create_exclusive(path, b"other")
    both_have_read = threading.Barrier(2)

    def take(name: bytes) -> bool:
        def change(old: bytes) -> bytes:
            assert old == b"old"
            both_have_read.wait()
            return name

        return update_exclusive(path, change)

    with ThreadPoolExecutor(2) as threads:
        took = list(threads.map(take, (b"a", b"b")))
    assert sorted(took) == [False, True]
    assert storage.read_bytes(path) == (b"a", b"b")[took.index(True)]


def test_one_of_many_creates_a_file(bucket: str) -> None:
    path = f"{bucket}/exclusive/new"
    names = [str(number).encode() for number in range(6)]
    with ThreadPoolExecutor(6) as threads:
        created = list(threads.map(lambda name: create_exclusive(path, name), names))
    assert sum(created) == 1
    assert storage.read_bytes(path) == names[created.index(True)]


def test_a_file_removed_meanwhile_is_not_created_again(bucket: str) -> None:
    path = f"{bucket}/exclusive/removed"
    assert create_exclusive(path, b"old")

    def change(old: bytes) -> bytes:
        storage.remove(path)
        return b"new"

    assert not update_exclusive(path, change)
    assert not storage.exists(path)


@pytest.mark.parametrize("how", ["ignores", "refuses"])
def test_a_store_that_knows_no_conditions_is_read_again(
    bucket: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    import s3fs

    put = s3fs.S3FileSystem._pipe_file
    path = f"{bucket}/exclusive/{how}"
    others: list[bytes] = []

    async def pipe_file(fs: Any, inner: str, data: bytes, **condition: Any) -> None:
        if condition and how == "refuses":
            raise OSError(errno.ENOSYS, "A header you provided is not implemented")
        await put(fs, inner, data)
        if others:
            await put(fs, inner, others.pop())

    monkeypatch.setattr(exclusive, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", pipe_file)
    s3fs.S3FileSystem.clear_instance_cache()
    assert create_exclusive(path, b"old")
    assert not create_exclusive(path, b"new")
    assert storage.read_bytes(path) == b"old"
    assert update_exclusive(path, lambda old: b"mine")
    others += [b"other"] * (2 if how == "ignores" else 1)
    assert not update_exclusive(path, lambda old: b"new")
    storage.remove(path)
    others += [b"other"] * (2 if how == "ignores" else 1)
    assert not create_exclusive(path, b"new")
    assert storage.read_bytes(path) == b"other"
    s3fs.S3FileSystem.clear_instance_cache()


# Folder markers: objects of no bytes that web consoles of stores make


@pytest.fixture
def marked(bucket: str) -> str:
    """Return a folder that holds one file and several markers."""
    folder = f"{bucket}/marked/stage"
    fs, inner = storage.open_remote(folder)
    for marker in ("", "_work/", "_work/units/"):
        fs.call_s3("put_object", Bucket="corpora", Key=f"marked/stage/{marker}")
    storage.write_bytes(f"{folder}/manifest.json", b"{}")
    assert f"{inner}/_work/" in fs.find(inner)
    return folder


def test_a_folder_marker_is_no_file(marked: str) -> None:
    assert storage.list_names(marked) == ["manifest.json"]
    assert storage.list_names(f"{marked}/_work") == []
    assert not storage.exists(f"{marked}/_work/units/asked.json")


def test_entries_of_a_folder_with_markers_move(marked: str) -> None:
    storage.write_bytes(f"{marked}/_work/units/1", b"unit")
    assert storage.list_folders(marked) == ["_work"]
    storage.move_entries(marked, f"{marked}/moved", ["_work", "manifest.json"])
    assert storage.list_names(f"{marked}/moved") == ["manifest.json"]
    assert storage.list_names(f"{marked}/moved/_work/units") == ["1"]
    storage.remove_tree(marked)


def test_a_folder_with_markers_moves_aside(marked: str) -> None:
    aside = move_aside(marked)
    assert storage.list_names(aside) == ["manifest.json"]
    assert not storage.exists(marked)
    storage.remove_tree(aside)


def test_a_folder_is_removed_with_its_markers(marked: str) -> None:
    storage.remove_tree(f"{marked}/_work")
    assert not storage.exists(f"{marked}/_work")
    assert storage.list_names(marked) == ["manifest.json"]
    storage.remove_tree(marked)
    assert not storage.exists(marked)
