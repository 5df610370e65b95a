"""Files found on a web server."""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.search.find import find_files

pytest.importorskip("aiohttp")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


def test_the_pages_of_a_listing_are_found_by_the_same_rules(site: str, tmp_path: Path) -> None:
    (tmp_path / "x" / ".hidden").mkdir(parents=True)
    for name in ("a b.txt", "c#%.txt", ".d.txt", "x/e.txt", "x/.hidden/f.txt", "g[1].bin"):
        (tmp_path / name).write_bytes(name.encode())
    for pattern, names in {
        "*.txt": ["a%20b.txt", "c%23%25.txt"],
        "**/*.txt": ["a%20b.txt", "c%23%25.txt", "x/e.txt"],
        "*/*": ["x/e.txt"],
        "c%23%25.txt": ["c%23%25.txt"],
        "x/e.txt?query=1": ["e.txt?query=1"],
    }.items():
        found = find_files(f"{site}/{pattern}")
        assert [file.name for file in found] == names
        for file in found:
            assert len(storage.read_bytes(file.path)) == file.bytes
            assert file.version.endswith("GMT")
    with pytest.raises(StorageError, match=r"'#' in a web address begins a part that no server"):
        find_files(f"{site}/c#%25.txt")


def test_a_change_at_equal_size_has_another_version(site: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (before,) = find_files(f"{site}/a.txt")
    (tmp_path / "a.txt").write_text("two")
    os.utime(tmp_path / "a.txt", (1, 1))
    (after,) = find_files(f"{site}/a.txt")
    assert before.version != after.version == "Thu, 01 Jan 1970 00:00:01 GMT"
