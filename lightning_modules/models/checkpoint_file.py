"""The file of a training checkpoint: a zip archive of `torch.save` with a checksum of itself.

Equal contents give equal bytes. The checksum is the archive's comment, which other readers ignore, so
`torch.load` reads the file too. Files of version 0.1 have no checksum.
"""

import io
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import torch
import xxhash
from torch import Tensor

from lightning_modules.models.train_files import BEST as BEST
from lightning_modules.models.train_files import CHECKPOINT as CHECKPOINT
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.temporary import temporary_folder
from preprocess.files.verified import DamagedResult, manifest_of, read_verified, verify

MARK = b"biloom-xxh128:"
"""Beginning of the comment; the digest in hex follows."""
COMMENT_BYTES = len(MARK) + 32
CHECKSUM = "checksum"
"""Key of a checkpoint that has a checksum. A file with this key and without a checksum is damaged."""
PLAIN = (str, int, float, bool, type(None))
DEEPEST = 16
AT_ONCE = 1 << 22
"""Bytes that are hashed, and read or written, at once."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read."""


def read_checkpoint(path: str, mapped: bool = False) -> dict[str, Any]:
    """Return the tensors and plain values of a training checkpoint, on the CPU.

    A checkpoint from an untrusted source cannot run code, and takes no more memory than the file. The
    checkpoints of a finished training are also compared with their records in the manifest.

    Args:
        path: path or URL of the file.
        mapped: map the tensors from the file, copy-on-write, instead of copying them: only the parts
            that are used are read, and the processes of a machine share them in memory. The file keeps
            its space on the disk as long as a tensor exists, so tensors that are kept should be copied.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    folder, _, name = path.rpartition("/")
    try:
        manifest = manifest_of(folder) if name in (CHECKPOINT, BEST) else None
        if not mapped:
            return _checked(path, lambda: _unpack(read_verified(folder, manifest, name)))
        if manifest and (record := manifest.records.get(name)):
            verify(folder, record, manifest.stage)
        with _local_file(path) as local:
            return _checked(path, lambda: _map(local))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing; make it again with `biloom train --overwrite`"
        ) from error
    except DamagedResult as error:
        raise CheckpointError(str(error)) from error


def _checked(path: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the contents of a checkpoint; turn errors of its format into `CheckpointError`."""
    try:
        return read()
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # torch.load raises many types of exceptions
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is damaged ({reason[:200]}); make it again with `biloom train --overwrite`"
        ) from error


@contextmanager
def _local_file(path: str) -> Iterator[str]:
    """Yield the path of a local file with the content of a path or URL; a temporary one for a URL."""
    if not storage.is_remote(path):
        yield str(storage.local_path(path))
        return
    with temporary_folder("biloom-") as folder, storage.open_read(path) as source:
        local = f"{folder}/checkpoint"
        with open(local, "wb") as file:
            shutil.copyfileobj(source, file, AT_ONCE)
        yield local


def check_archive(file: BinaryIO) -> None:
    """Check that a zip archive of `torch.save` cannot unpack to more than its size.

    Raises:
        ValueError: a part is compressed, or parts overlap.
        zipfile.BadZipFile: the file is no zip archive.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it has compressed parts")
    if sum(member.file_size for member in members) > file.seek(0, io.SEEK_END):
        raise ValueError("its parts overlap")


def _unpack(data: bytes) -> dict[str, Any]:
    """Return the contents of a checkpoint from the bytes of its file."""
    file = io.BytesIO(data)
    has_checksum = _verify_checksum(file)
    check_archive(file)
    file.seek(0)
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    return _plain(checkpoint, len(data), has_checksum)


def _map(path: str) -> dict[str, Any]:
    """Return the contents of a checkpoint, mapped from a local file."""
    with storage.open_read(path) as file:
        if not _verify_checksum(file):
            # torch checks the checksums of the archive only when it copies the tensors.
            file.seek(0)
            return _unpack(file.read())
        check_archive(file)
        size = file.seek(0, io.SEEK_END)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return _plain(checkpoint, size, has_checksum=True)


def _verify_checksum(file: BinaryIO) -> bool:
    """Compare a file with its checksum; return False if it has none.

    Raises:
        ValueError: they differ.
    """
    size = file.seek(0, io.SEEK_END)
    left = max(size - COMMENT_BYTES, 0)
    file.seek(left)
    end = file.read()
    if not end.startswith(MARK):
        return False
    file.seek(0)
    digest = xxhash.xxh128()
    while left and (part := file.read(min(left, AT_ONCE))):
        digest.update(part)
        left -= len(part)
    if digest.hexdigest().encode() != end.removeprefix(MARK):
        raise ValueError("its checksum is wrong")
    return True


def _plain(checkpoint: Any, size: int, has_checksum: bool) -> dict[str, Any]:
    """Check the contents of a checkpoint whose file has ``size`` bytes, and return them."""
    _check(checkpoint, size, DEEPEST)
    if not isinstance(checkpoint, dict):
        raise TypeError("it holds no dictionary")
    if checkpoint.pop(CHECKSUM, None) and not has_checksum:
        raise ValueError("its checksum is missing")
    return checkpoint


def _check(value: Any, size: int, depth: int) -> None:
    """Refuse values that `write_checkpoint` does not write, and tensors larger than the file."""
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
