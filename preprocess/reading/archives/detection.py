"""Detection of tar and zip archives from their first bytes."""

import re
from typing import Literal, NoReturn

from preprocess.reading.byte_range import NOT_TEXT, unreadable_file
from preprocess.reading.kinds.signatures import EXTRACT, TAR, ZIP, Kind, has_signature, is_tar
from preprocess.reading.stream import Stream

ArchiveKind = Literal["tar", "zip"]
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_LOCAL_HEADER_BYTES = 30
_TAR_NAME = re.compile(r"\.(?:tar(?:\.\w+)?|tgz|tbz2?|txz|tzst)$", re.I)
_END_OF_TAR = bytes(1024)

OFFICE = Kind("an Office document", EXTRACT)
BOOK = Kind("an e-book or an OpenDocument file", EXTRACT)
JAVA = Kind("a Java archive or an app", "leave out programs")
NPZ = Kind("a NumPy archive (npz)", "convert it to JSON Lines or Parquet")
MODEL = Kind("a model file of PyTorch", "convert it to JSON Lines or Parquet")
_CONTAINERS = (
    (re.compile(rb"\[Content_Types\]\.xml|_rels/|docProps/|(?:word|xl|ppt)/"), OFFICE),
    (re.compile(rb"mimetype\Z"), BOOK),
    (re.compile(rb"META-INF/|AndroidManifest\.xml\Z"), JAVA),
    (re.compile(rb".*\.npy\Z", re.S), NPZ),
    (re.compile(rb"[^/]*/(?:data\.pkl|byteorder|\.format_version)\Z"), MODEL),
)


def find_archive(head: bytes, name: str) -> ArchiveKind | None:
    """Return the kind of an archive, or None for any other file.

    Args:
        head: the first bytes of the file, uncompressed: at least 1024, or all of a shorter file.
        name: its name. It decides only about an empty tar archive, which has nothing but NULs.
    """
    if has_signature(head, _ZIP_STARTS):
        return "zip"
    if is_tar(head) or (
        head.startswith(_END_OF_TAR) and not head.strip(b"\0") and _TAR_NAME.search(name)
    ):
        return "tar"
    return None


def find_container(head: bytes) -> Kind | None:
    """Return the kind of a zip file that is a document or program, by the name of its first member.

    The members of such a file are not texts that anyone has archived.

    Args:
        head: the first bytes of a zip file.
    """
    size = int.from_bytes(head[26:28], "little")
    first = head[_LOCAL_HEADER_BYTES : _LOCAL_HEADER_BYTES + size]
    return next((kind for pattern, kind in _CONTAINERS if pattern.match(first)), None)


def refuse_archive(stream: Stream, kind: ArchiveKind, container: Kind | None) -> NoReturn:
    """Raise the error for an archive whose members are not read.

    Args:
        stream: the archive.
        kind: its kind.
        container: what it is instead, from `find_container`, or None if it is only at a place where it
            is not read: in another archive, or a zip archive in a compressed file.
    """
    what, remedy = (container.what, container.remedy) if container else (_WHAT[kind], _OUTER)
    inside = (
        " inside an archive" if stream.is_member else " inside a compressed file" * stream.packed
    )
    raise unreadable_file(stream.path, f"this is {what}{inside}", remedy, NOT_TEXT)


_WHAT = {"tar": TAR.what, "zip": ZIP.what}
_OUTER = "unpack the outer file"
