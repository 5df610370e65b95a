"""Paths and URLs. A path without a protocol is local.

A chained URL names a file inside another one: ``zip://member.txt::s3://bucket/archive.zip``. Before
the first ``::`` stands the protocol of an archive with the path of a member, or the protocol of a
cache, which has no path: ``simplecache::https://example.org/a.txt``. After it stands the path or URL
of the outer file, which may be chained itself.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from preprocess.files.errors import StorageError

ARCHIVES = ("zip", "tar")
THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")
"""Hosts that no proxy can reach."""
S3_RETRIES = {
    "mode": ("AWS_RETRY_MODE", "standard"),
    "total_max_attempts": ("AWS_MAX_ATTEMPTS", 10),
}
"""Options of botocore's retries, each with the environment variable that replaces it, and its value.

In this mode, the wait before attempt n + 1 is drawn from 0 to min(2^(n - 1), 20) seconds, so ten attempts
bridge an outage of 55 seconds on average.
"""
CACHES = ("simplecache", "filecache", "blockcache")
_OTHERS = ("gzip", "gz", "bz2", "xz", "lzma", "zstd", "zst", "lz4", "libarchive")
_LINKS = re.compile(r"([a-z][a-z0-9_+.-]*)(?:://(.*?))?::(.+)", re.DOTALL)
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]*://")


class Chained(NamedTuple):
    """A chained URL in its parts.

    Attributes:
        protocol: one of `ARCHIVES` or `CACHES`.
        member: path or pattern in the archive; empty for a cache.
        outer: path or URL of the outer file.
    """

    protocol: str
    member: str
    outer: str

    def __str__(self) -> str:
        if self.protocol in ARCHIVES:
            return f"{self.protocol}://{self.member}::{self.outer}"
        return (
            f"{self.protocol}::{self.outer if has_protocol(self.outer) else 'file://' + self.outer}"
        )


def has_protocol(path: str) -> bool:
    """Return True if ``path`` begins with a protocol, as in ``s3://``."""
    return _PROTOCOL.match(path) is not None


def split_chain(path: str) -> Chained | None:
    """Return the parts of a chained URL; None for any other path or URL.

    ``::`` may also be part of the name of a local file or of a key in a store.

    Raises:
        StorageError: the URL is chained in a way that cannot be read.
    """
    match = _LINKS.fullmatch(path)
    if not match:
        return None
    protocol, member, outer = match.groups()
    if (protocol in ARCHIVES and member) or (protocol in CACHES and member is None):
        return Chained(protocol, member or "", outer)
    if protocol in (*ARCHIVES, *CACHES, *_OTHERS) or has_protocol(outer):
        raise StorageError(
            f"{path}: a URL that is chained like this cannot be read; write "
            "zip://MEMBER::FILE, tar://MEMBER::FILE or simplecache::URL, or name a compressed file "
            "without a chain"
        )
    return None


def is_remote(path: str) -> bool:
    """Return True if ``path`` is a URL that is not, or not only, on the local disk."""
    if path.startswith(("file://", "local://")):
        return False
    return has_protocol(path) or ("::" in path and split_chain(path) is not None)


def local_path(path: str) -> Path:
    """Return a local path or ``file://`` URL as a `Path`; ``~`` and ``~user`` are expanded.

    Raises:
        StorageError: the path has a character that no file name can have.
    """
    if "\0" in path:
        raise StorageError(f"{path}: a path cannot hold the character NUL; remove it")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise StorageError(
            f"{path}: a path cannot hold the character U+{ord(path[error.start]):04X} "
            f"({error.reason}); remove it"
        ) from error
    # Unlike Path.expanduser, this keeps a name such as `~a.txt` if there is no such user.
    return Path(os.path.expanduser(path.removeprefix("file://").removeprefix("local://")))  # noqa: PTH111


def open_local(path: str) -> BinaryIO:
    """Open a local file to read it.

    Raises:
        StorageError: the path is a pipe or a device, whose content may never end.
    """
    return open(local_path(path), "rb", opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
    # O_NONBLOCK, because opening a pipe would otherwise wait for a writer.
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # open() refuses a folder
        return handle
    os.close(handle)
    raise StorageError(
        f"{path}: this is a pipe or a device, not a file; write its content to a file"
    )


def absolute(path: str) -> str:
    """Return a local path as an absolute one, which all workers can open; URLs are unchanged."""
    return path if is_remote(path) else str(local_path(path).absolute())


def join(folder: str, *parts: str) -> str:
    """Return the path or URL of ``parts``, nested names, below ``folder``."""
    return "/".join([folder.rstrip("/"), *parts]) if folder != "/" else "/" + "/".join(parts)


def overlap(one: str, other: str) -> bool:
    """Return True if two folders are the same, or one lies in the other. Symbolic links are followed."""
    first, second = (
        (path if is_remote(path) else os.path.realpath(local_path(path))).rstrip("/") + "/"
        for path in (one, other)
    )
    return first.startswith(second) or second.startswith(first)


def client_settings(url: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return fsspec's options for the client of a URL; empty for most protocols.

    A web client respects http_proxy and no_proxy. An S3 client repeats failed requests as `S3_RETRIES`
    says, unless botocore's environment variables or fsspec's configuration say otherwise.

    Args:
        url: any URL.
        settings: fsspec's own configuration.
    """
    protocol, _, rest = url.rpartition("::")[2].partition("://")
    host = re.split(r"[/?#]", rest.rpartition("@")[2], maxsplit=1)[0]
    # URLs of this machine need no proxy.
    if protocol in ("http", "https") and not host.startswith(THIS_MACHINE):
        own = settings.get(protocol, {}).get("client_kwargs", {})
        return {protocol: {"client_kwargs": {"trust_env": True, **own}}}
    if protocol in ("s3", "s3a"):
        own = settings.get("s3", {}).get("config_kwargs", {})
        retries = {
            option: value
            for option, (variable, value) in S3_RETRIES.items()
            if variable not in os.environ
        }
        return {protocol: {"config_kwargs": {"retries": retries, **own}}}
    return {}
