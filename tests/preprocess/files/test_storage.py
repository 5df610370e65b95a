"""Storage by path and URL: atomic writes, listings and messages, local and remote."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.remote import objects
from preprocess.files.write_checks import checked_writes
from preprocess.work.aside import move_aside


def names_below(folder: str) -> list[str]:
    return storage.list_names(folder)


def test_a_file_appears_when_the_block_ends(folder: str) -> None:
    path = storage.join(folder, "a", "b.bin")
    with storage.atomic_writer(path) as file:
        file.write(b"12")
        assert not storage.exists(path)
        file.write(b"345")
    assert storage.read_bytes(path) == b"12345"
    assert storage.read_bytes(path, 1, 3) == b"23"
    assert names_below(storage.join(folder, "a")) == ["b.bin"]


def test_an_exception_leaves_the_old_file_and_nothing_else(folder: str) -> None:
    path = storage.join(folder, "b.bin")
    storage.write_bytes(path, b"old")

    def fail() -> None:
        with storage.atomic_writer(path) as file:
            file.write(b"new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert storage.read_bytes(path) == b"old"
    assert names_below(folder) == ["b.bin"]


def test_a_stream_seeks(folder: str) -> None:
    path = storage.join(folder, "b.bin")
    storage.write_bytes(path, b"0123456789")
    with storage.open_read(path) as file:
        file.seek(4)
        assert file.read(2) == b"45"


def test_a_missing_file_raises(folder: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(folder, "none"))


def test_a_copy_can_be_made_twice_and_leaves_one_name(folder: str) -> None:
    old, new = storage.join(folder, "old"), storage.join(folder, "new")
    storage.write_bytes(old, b"same")
    for _ in range(2):
        storage.copy(old, new)
    storage.write_bytes(old, b"other")
    assert storage.read_bytes(new) == b"same"
    assert names_below(folder) == ["new", "old"]


def test_a_copy_is_made_if_a_hard_link_is_not_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    storage.write_bytes(str(tmp_path / "old"), b"same")
    storage.copy(str(tmp_path / "old"), str(tmp_path / "new"))
    assert (tmp_path / "new").read_bytes() == b"same"
    with pytest.raises(FileNotFoundError):
        storage.copy(str(tmp_path / "none"), str(tmp_path / "x"))
    assert names_below(str(tmp_path)) == ["new", "old"]


def test_removing_a_missing_file_or_folder_does_nothing(folder: str) -> None:
    path = storage.join(folder, "a", "b")
    for _ in range(2):
        storage.remove(path)
        storage.write_bytes(path, b"x")
    storage.remove_tree(folder)
    storage.remove_tree(folder)
    assert not storage.exists(path)
    assert names_below(folder) == []


def test_a_folder_moved_aside_gets_the_first_free_name(folder: str) -> None:
    for number in (1, 2):
        storage.write_bytes(storage.join(folder, "a"), str(number).encode())
        assert move_aside(folder + "/") == f"{folder}.old-{number}"
    assert not storage.exists(storage.join(folder, "a"))
    assert storage.read_bytes(f"{folder}.old-2/a") == b"2"


def test_moved_files_are_counted_while_they_move(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "COPIED_AT_ONCE", 2)
    names = ["a", "b", "c"]
    for name in names:
        storage.write_bytes(storage.join(folder, name), name.encode())
    counts: list[int] = []
    storage.move_entries(folder, storage.join(folder, "x"), names, counts.append)
    is_remote = storage.is_remote(folder)
    assert counts == ([2, 1] if is_remote else [1, 1, 1])
    assert names_below(storage.join(folder, "x")) == names
    counts.clear()
    aside = move_aside(folder, counts.append)
    # A disk renames the folder.
    assert counts == ([2, 1] if is_remote else [])
    assert storage.read_bytes(storage.join(aside, "x", "c")) == b"c"


@settings(max_examples=20, deadline=None)
@given(contents=st.lists(st.tuples(st.binary(max_size=5), st.integers(0, 10_000)), min_size=2))
def test_a_file_with_many_writers_is_always_one_of_them_whole(
    contents: list[tuple[bytes, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("writers")
    wholes = [content * repeats for content, repeats in contents[:8]]
    begin = threading.Barrier(len(wholes))

    def write(whole: bytes) -> None:
        begin.wait()
        with storage.atomic_writer(str(folder / "file")) as file:
            for start in range(0, len(whole), 4096):
                file.write(whole[start : start + 4096])
        assert (folder / "file").read_bytes() in wholes

    with ThreadPoolExecutor(len(wholes)) as threads:
        list(threads.map(write, wholes))
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    name = "名" * 85
    storage.write_bytes(str(tmp_path / name), b"x")
    storage.copy(str(tmp_path / name), str(tmp_path / ("x" * 255)))
    assert names_below(str(tmp_path)) == ["x" * 255, name]


def test_nothing_changes_in_a_folder_that_may_not_be_written(folder: str) -> None:
    path, other = storage.join(folder, "a", "b"), storage.join(folder, "c")
    storage.write_bytes(path, b"old")
    storage.write_bytes(other, b"other")

    def refuse() -> None:
        raise StorageError("not yours")

    def write() -> None:
        with storage.atomic_writer(path) as file:
            file.write(b"new")

    with checked_writes("name", storage.absolute(storage.join(folder, "a")), refuse):
        for change in (
            write,
            lambda: storage.write_bytes(path, b"new"),
            lambda: storage.copy(other, path),
            lambda: storage.remove(path),
            lambda: storage.remove_tree(storage.join(folder, "a")),
            lambda: move_aside(storage.join(folder, "a") + "/"),
        ):
            with pytest.raises(StorageError, match="not yours"):
                change()
        storage.write_bytes(other, b"new")
    assert storage.read_bytes(path) == b"old"
    assert names_below(storage.join(folder, "a")) == ["b"]
    storage.write_bytes(path, b"new")


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(StorageError, match="nope://x: cannot open a 'nope' URL"):
        storage.exists("nope://x")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionRefusedError(111, "refused"), r"ftp://x: the store reported an error \(Conn"),
        (TypeError("missing 'fo'"), r"ftp://x: cannot open a 'ftp' URL \(missing 'fo'\)"),
        (AttributeError("None"), "ftp://x: cannot open a 'ftp' URL"),
    ],
)
def test_a_client_that_fails_when_it_is_opened_is_reported(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> None:
        raise error

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(StorageError, match=message):
        storage.exists("ftp://x")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str, **settings: Any) -> None:
        raise ImportError("Install s3fs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(StorageError, match=r"Install s3fs.*pip install 'biloom\[s3\]'"):
        storage.exists("s3://bucket/x")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    storage.check_writable(str(tmp_path / "new"))
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(
        StorageError, match=r"file/x: cannot write here .*name another output folder"
    ):
        storage.check_writable(str(tmp_path / "file" / "x"))


def test_paths_without_a_remote_protocol_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.is_remote("s3://bucket/x")
    assert not storage.is_remote("file:///x")
    assert storage.absolute("s3://bucket/x") == "s3://bucket/x"
    assert storage.absolute("file:///x") == "/x"
    monkeypatch.chdir("/")
    assert storage.absolute("x") == "/x"
    assert storage.join("/", "x", "y") == "/x/y"
    assert storage.join("a/", "b") == "a/b"


@pytest.mark.parametrize("read", [storage.read_bytes, storage.open_read])
def test_a_pipe_or_device_is_refused_without_waiting_for_it(tmp_path: Path, read: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(StorageError) as error:
            read(str(path))
        assert str(error.value) == (
            f"{path}: this is a pipe or a device, not a file; write its content to a file"
        )
    with pytest.raises(IsADirectoryError):
        read(str(tmp_path))


def test_a_path_with_nul_is_refused() -> None:
    with pytest.raises(StorageError) as error:
        storage.exists("a\0b")
    assert str(error.value) == r"a\x00b: a path cannot hold the character NUL; remove it"


class Proxy(BaseHTTPRequestHandler):
    """Answers a request for any host with its whole URL."""

    def do_GET(self) -> None:
        data = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_web_files_are_read_through_a_proxy_but_those_of_this_machine_directly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    for name in ("no_proxy", "NO_PROXY", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", here)
    assert storage.read_bytes("http://corpus.invalid/a.txt") == b"http://corpus.invalid/a.txt"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert storage.read_bytes(f"{here}/b.txt") == b"/b.txt"
    server.shutdown()
    server.server_close()
