"""Arrays that may be too large for memory."""

import os
import tempfile
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError

Allocate = Callable[[tuple[int, int, int]], npt.NDArray[np.float32]]


class ScratchError(UserError):
    """There is no room for a scratch file."""


def allocate(shape: tuple[int, int, int], memory_bytes: int) -> npt.NDArray[np.float32]:
    """A float32 array: in memory up to that size, else mapped from a nameless file in TMPDIR.

    Raises:
        ScratchError: the disk has no room for it.
    """
    size = int(np.prod(shape, dtype=np.int64)) * 4
    if size <= memory_bytes:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        try:
            # A mapped file without blocks would end the process where the disk is full.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise ScratchError(
                f"{tempfile.gettempdir()}: no room for the {size:,} bytes of a long text's vectors "
                f"({error.strerror}); set TMPDIR to a larger disk"
            ) from error
        return np.memmap(file, np.float32, "w+", shape=shape)
