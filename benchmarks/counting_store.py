"""A store that counts requests: an fsspec file system around a local folder, with the protocol ``count://``.

Each method makes the requests that s3fs makes for it: an object that is missing is told by a HEAD and a LIST,
a copy is a HEAD and a COPY, a LIST has 1,000 names, and a DELETE of several objects has 1,000. It knows
nothing of biloom. Requests are counted by phase; the phase of a thread is set with `in_phase`.
"""

import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

PAGE = 1000
"""Names in an answer to a LIST, and in a DELETE of several objects."""
MULTIPART = 100 * 2**20
"""Bytes from which an object is uploaded in parts of half this size."""

_phase = threading.local()


class Counts:
    """Requests by phase and kind, and bytes by phase and direction."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()
        self.default = "driver"
        self._lock = threading.Lock()

    def add(self, kind: str, number: int = 1, size: int = 0) -> None:
        """Count requests of a kind, and the bytes they read (GET) or write (others)."""
        thread = threading.current_thread().name
        phase = getattr(_phase, "name", None) or ("watch" if "(watch)" in thread else self.default)
        with self._lock:
            self.requests[phase, kind] += number
            if size:
                self.bytes[phase, "read" if kind == "GET" else "written"] += size


COUNTS = Counts()


@contextmanager
def in_phase(name: str) -> Iterator[None]:
    """Count the requests that this thread makes in the block under a phase."""
    _phase.name = name
    try:
        yield
    finally:
        _phase.name = None


class CountingStore(AbstractFileSystem):
    """The file system; ``count://a/b`` is the file ``a/b`` of the folder `root`."""

    protocol = "count"
    root = Path()
    cachable = True

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return str(path).removeprefix("count://").strip("/")

    def _local(self, path: str) -> Path:
        return self.root / self._strip_protocol(path)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        local = self._local(path)
        if not local.is_file():
            COUNTS.add("GET")
            raise FileNotFoundError(path)
        with local.open("rb") as file:
            file.seek(start or 0)
            data = file.read() if end is None else file.read(end - (start or 0))
        COUNTS.add("GET", 1, len(data))
        return data

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        local = self._local(path)
        try:
            local.write_bytes(value)
        except FileNotFoundError:
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(value)
        self._count_put(len(value))

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:  # type: ignore[override]
        local = self._local(rpath)
        local.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(lpath, local)
        self._count_put(local.stat().st_size)

    def _count_put(self, size: int) -> None:
        parts = -(-size // (MULTIPART // 2)) + 2 if size > MULTIPART else 1
        COUNTS.add("PUT", parts, size)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        COUNTS.add("HEAD")
        local = self._local(path)
        if local.is_file():
            return _described(self._strip_protocol(path), local.stat())
        COUNTS.add("LIST")
        if local.is_dir():
            return {"name": self._strip_protocol(path), "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def exists(self, path: str, **_: Any) -> bool:
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        local, folder = self._local(path), self._strip_protocol(path)
        entries = [*os.scandir(local)] if local.is_dir() else []
        COUNTS.add("LIST", max(1, -(-len(entries) // PAGE)))
        if not entries:
            raise FileNotFoundError(path)
        names = [
            {"name": f"{folder}/{entry.name}", "size": 0, "type": "directory"}
            if entry.is_dir()
            else _described(f"{folder}/{entry.name}", entry.stat())
            for entry in entries
        ]
        return names if detail else [one["name"] for one in names]

    def find(
        self,
        path: str,
        maxdepth: Any = None,
        withdirs: bool = False,
        detail: bool = False,
        **_: Any,
    ) -> Any:
        local = self._local(path)
        found = {
            str(Path(folder, name).relative_to(self.root)): Path(folder, name)
            for folder, _, names in os.walk(local)
            for name in names
        }
        COUNTS.add("LIST", max(1, -(-len(found) // PAGE)))
        if not detail:
            return sorted(found)
        return {name: _described(name, file.stat()) for name, file in sorted(found.items())}

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        COUNTS.add("HEAD")
        source, target = self._local(path1), self._local(path2)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        os.link(source, target)
        COUNTS.add("COPY")

    def copy(self, path1: Any, path2: Any, **options: Any) -> None:  # type: ignore[override]
        if isinstance(path1, str):
            path1, path2 = [path1], [path2]
        for source, target in zip(path1, path2, strict=True):
            self.cp_file(source, target)

    def rm_file(self, path: str) -> None:
        COUNTS.add("DELETE")
        self._local(path).unlink()

    def rm(self, path: Any, recursive: bool = False, maxdepth: Any = None) -> None:
        paths = [path] if isinstance(path, str) else path
        number = 0
        for one in paths:
            local = self._local(one)
            if local.is_dir():
                files = sum(len(names) for _, _, names in os.walk(local))
                COUNTS.add("LIST", max(1, -(-files // PAGE)))
                number += files
                shutil.rmtree(local)
            else:
                local.unlink(missing_ok=True)
                number += 1
        COUNTS.add("DELETE", -(-number // PAGE))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._local(path).mkdir(parents=True, exist_ok=True)

    def created(self, path: str) -> Any:
        raise NotImplementedError

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **options: Any) -> Any:
        assert mode == "rb", "whole objects are written in one put"
        return _File(self, path, mode, block_size or 50 * 2**20, size=self.info(path)["size"])


def _described(name: str, status: os.stat_result) -> dict[str, Any]:
    tag = f"{status.st_size}-{status.st_mtime_ns}"
    return {"name": name, "size": status.st_size, "type": "file", "ETag": tag}


class _File(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.cat_file(self.path, start, end)  # type: ignore[no-any-return]


def register(root: Path) -> None:
    """Make ``count://`` URLs name the files below ``root``."""
    CountingStore.root = root
    fsspec.register_implementation("count", CountingStore, clobber=True)
