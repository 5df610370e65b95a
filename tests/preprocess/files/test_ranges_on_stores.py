"""Any range of any file reads alike on a disk, in memory, on two object stores and over HTTP."""

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from preprocess.files import storage
from preprocess.work.shuffle import Layout, Shuffle

DATA = b"0123456789"
RANGES = [
    (start, end)
    for start in (0, 3, 9, 10, 11)
    for end in (0, 3, 5, 10, 12, None)
    if end is None or end >= start
]


def assert_ranges(folder: str) -> None:
    """Assert that files "empty" and "ten" of the folder, the second with `DATA`, read as they must."""
    for name, data in (("empty", b""), ("ten", DATA)):
        path = f"{folder}/{name}"
        for start, end in RANGES:
            assert storage.read_bytes(path, start, end) == data[start:end], (name, start, end)
        assert storage.read_bytes(path) == data
        with storage.open_read(path) as file:
            assert file.read() == data
            assert file.seek(2) == 2
            assert file.read(4) == data[2:6]
    for start, end in RANGES:
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(f"{folder}/missing", start, end)
    with pytest.raises(FileNotFoundError):
        storage.open_read(f"{folder}/missing")


def write(folder: str) -> None:
    storage.write_bytes(f"{folder}/empty", b"")
    storage.write_bytes(f"{folder}/ten", DATA)


def test_ranges_of_a_local_file(tmp_path: Path) -> None:
    write(str(tmp_path))
    assert_ranges(str(tmp_path))
    assert_ranges(f"file://{tmp_path}")


def test_ranges_of_a_file_in_memory() -> None:
    write("memory://ranges")
    assert_ranges("memory://ranges")


def test_ranges_of_an_object(bucket: str) -> None:
    write(f"{bucket}/ranges")
    assert_ranges(f"{bucket}/ranges")


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves ranges as web servers do: 206, or 416 if the range begins at or after the end."""

    def send_head(self) -> Any:
        path = Path(self.translate_path(self.path))
        wanted = self.headers["Range"]
        if not path.is_file() or not wanted:
            return super().send_head()
        begin, _, last = wanted.removeprefix("bytes=").partition("-")
        data = path.read_bytes()
        if int(begin) >= len(data):
            self.send_error(416)
            return None
        part = data[int(begin) : int(last or len(data)) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{int(begin) + len(part)}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    write(str(tmp_path))
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_ranges_of_a_file_on_the_web(site: str) -> None:
    pytest.importorskip("aiohttp")
    for name, data in (("empty", b""), ("ten", DATA)):
        for start, end in RANGES:
            read = storage.read_bytes(f"{site}/{name}", start, end)
            assert read == data[start:end], (name, start, end)
        with storage.open_read(f"{site}/{name}") as file:
            assert file.read() == data


def test_a_shuffle_of_units_without_rows_reads_nothing(bucket: str) -> None:
    shuffle = Shuffle(f"{bucket}/shuffle", Layout(3, 2))
    shuffle.write(0, 0, b"", [0, 0, 0])
    shuffle.write(1, 0, b"ab", [0, 0, 2])
    for run in range(3):
        shuffle.merge(run)
    assert [slices.data for slices in shuffle.read(0)] == [b""]
    [slices] = shuffle.read(1)
    assert (slices.units.tolist(), slices.sizes.tolist(), slices.data) == ([1], [2], b"ab")


def test_a_folder_on_a_store_is_no_file_in_itself(bucket: str) -> None:
    storage.write_bytes(f"{bucket}/listed/_work/lock.json", b"{}")
    storage.remove(f"{bucket}/listed/_work/lock.json")  # some stores keep the empty folder
    assert storage.list_names(f"{bucket}/listed/_work") == []
