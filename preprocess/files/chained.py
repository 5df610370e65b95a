"""URLs that name a file inside another one, such as ``zip://member.txt::s3://bucket/archive.zip``.

The part before the first ``::`` is a protocol, with the path of a member if the protocol is that of
an archive. The part after it is the path or URL of the outer file, which may be chained itself. A
cache, as in ``simplecache::https://example.org/a.txt``, has no path of its own.
"""

import re
from typing import NamedTuple

from preprocess.files.errors import StorageError

ARCHIVES = ("zip", "tar")
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
