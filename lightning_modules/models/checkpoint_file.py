"""The file of a training checkpoint: a zip archive of `torch.save` with a checksum of itself.

Equal contents give equal bytes. The checksum is the archive's comment, which other readers ignore, so
`torch.load` reads the file too. Files of version 0.1 have no checksum.
"""

import io
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
import xxhash
from torch import Tensor

from lightning_modules.models.train_files import BEST as BEST
from lightning_modules.models.train_files import CHECKPOINT as CHECKPOINT
from preprocess.errors import UserError
from preprocess.files.verified import DamagedResult, manifest_of, read_verified

MARK = b"biloom-xxh128:"
"""Beginning of the comment; the digest in hex follows."""
COMMENT_BYTES = len(MARK) + 32
CHECKSUM = "checksum"
"""Key of a checkpoint that has a checksum. A file with this key and without a checksum is damaged."""
PLAIN = (str, int, float, bool, type(None))
DEEPEST = 16


class CheckpointError(UserError):
    """A checkpoint that cannot be read."""


def pack_checkpoint(checkpoint: Mapping[str, Any]) -> bytes:
    """Return the bytes of a checkpoint, which depend on its contents only.

    The order of keys, and which equal strings are one object, do not matter. Tensors that share memory
    completely, such as tied weights, are stored once.

    Args:
        checkpoint: nested dicts, lists and tuples of tensors and plain values.
    """
    buffer = io.BytesIO()
    torch.save(_canonical({**checkpoint, CHECKSUM: "xxh128"}, {}), buffer)
    data = bytearray(buffer.getvalue())
    # The last two bytes of an archive without a comment are the length of the comment.
    data[-2:] = COMMENT_BYTES.to_bytes(2, "little")
    return bytes(data) + MARK + xxhash.xxh128_hexdigest(data).encode()


def _canonical(value: Any, clones: dict[Any, Tensor]) -> Any:
    """Return a copy that shares no object except interned strings and the given ``clones``."""
    if isinstance(value, Tensor):
        key = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if not value.numel() or key not in clones:
            clones[key] = value.detach().cpu().contiguous().clone()
        return clones[key]
    if isinstance(value, Mapping):
        items = [(_canonical(k, clones), _canonical(v, clones)) for k, v in value.items()]
        return dict(sorted(items, key=lambda item: (type(item[0]).__name__, item[0])))
    if isinstance(value, list | tuple):
        return type(value)([_canonical(one, clones) for one in value])
    return sys.intern(value) if isinstance(value, str) else value


def read_checkpoint(path: str) -> dict[str, Any]:
    """Return the tensors and plain values of a training checkpoint, on the CPU.

    A checkpoint from an untrusted source cannot run code, and takes no more memory than the file. The
    checkpoints of a finished training are also compared with their records in the manifest.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    folder, _, name = path.rpartition("/")
    try:
        manifest = manifest_of(folder) if name in (CHECKPOINT, BEST) else None
        data = read_verified(folder, manifest, name)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing; make it again with `biloom train --overwrite`"
        ) from error
    except DamagedResult as error:
        raise CheckpointError(str(error)) from error
    try:
        return _unpack(data)
    except Exception as error:  # torch.load raises many types of exceptions
        if isinstance(error, MemoryError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is damaged ({reason[:200]}); make it again with `biloom train --overwrite`"
        ) from error


def check_archive(data: bytes) -> None:
    """Check that a zip archive of `torch.save` cannot unpack to more than its size.

    Raises:
        ValueError: a part is compressed, or parts overlap.
        zipfile.BadZipFile: the data is no zip archive.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it has compressed parts")
    if sum(member.file_size for member in members) > len(data):
        raise ValueError("its parts overlap")


def _unpack(data: bytes) -> dict[str, Any]:
    body, mark, digest = data[:-COMMENT_BYTES], data[-COMMENT_BYTES:-32], data[-32:]
    if mark == MARK and xxhash.xxh128_hexdigest(body).encode() != digest:
        raise ValueError("its checksum is wrong")
    check_archive(data)
    checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    _check(checkpoint, len(data), DEEPEST)
    if not isinstance(checkpoint, dict):
        raise TypeError("it holds no dictionary")
    if checkpoint.pop(CHECKSUM, None) and mark != MARK:
        raise ValueError("its checksum is missing")
    return checkpoint


def _check(value: Any, size: int, depth: int) -> None:
    """Refuse values that `pack_checkpoint` does not write, and tensors larger than the file."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise TypeError("it holds a tensor of an unknown kind")
        if value.numel() * value.element_size() > min(value.untyped_storage().nbytes(), size):
            raise ValueError("it holds a tensor that is larger than its data")
    elif isinstance(value, dict | list | tuple):
        if not depth:
            raise ValueError("it is nested too deeply")
        for one in [*value.keys(), *value.values()] if isinstance(value, dict) else value:
            _check(one, size, depth - 1)
    elif not isinstance(value, PLAIN):
        raise TypeError(f"it holds a {type(value).__name__}")
