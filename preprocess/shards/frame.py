"""Files of the documents of a segment: a Zstandard frame of a JSON line and binary columns."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import zstandard

from preprocess.errors import UserError

LARGEST = 1 << 32
"""Maximum bytes of a file after decompression."""

Content = TypeVar("Content")


def encode_frame(head: dict[str, Any], columns: list[bytes]) -> bytes:
    """Return the content of a file.

    Args:
        head: JSON values, with the version of the format as ``format``.
        columns: the columns.
    """
    line = json.dumps(head).encode() + b"\n"
    return zstandard.ZstdCompressor(write_checksum=True).compress(b"".join([line, *columns]))


def decode_frame(
    data: bytes,
    path: str,
    newest: int,
    kind: type[UserError],
    read: Callable[[dict[str, Any], memoryview], Content],
) -> Content:
    """Return what a function reads from the head and the columns of a file.

    Args:
        data: the content of the file.
        path: path of the file, for messages.
        newest: newest version of the format that can be read.
        kind: class of the error.
        read: raises ValueError, KeyError or TypeError if they do not fit together.

    Raises:
        UserError: of class ``kind``: the content is damaged, or of a newer version of the format.
    """
    try:
        if zstandard.get_frame_parameters(data).content_size > LARGEST:
            raise ValueError("it claims to be larger than any segment")
        content = zstandard.ZstdDecompressor().decompress(data)
        end = content.index(b"\n") + 1
        head = json.loads(content[:end])
        if head["format"] > newest:
            raise kind(
                f"{path}: has format {head['format']}, and this version of biloom reads up to "
                f"{newest}; upgrade biloom"
            )
        return read(head, memoryview(content)[end:])
    except (
        *(zstandard.ZstdError, ValueError, KeyError, TypeError),
        *(AttributeError, OverflowError, RecursionError, MemoryError),
    ) as error:
        if isinstance(error, kind):
            raise
        raise kind(
            f"{path} is damaged ({error}); prepare the corpus again with --overwrite"
        ) from error
