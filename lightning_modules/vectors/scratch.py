"""Arrays that may be too large for memory."""

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError
from preprocess.files.temporary import temporary_file, temporary_root

Allocate = Callable[[tuple[int, int, int]], npt.NDArray[np.float32]]
"""A function from a shape to an uninitialised array."""


class ScratchError(UserError):
    """Raised if the disk has no room for a scratch file."""


def allocate(shape: tuple[int, int, int], memory_bytes: int) -> npt.NDArray[np.float32]:
    """Return an uninitialised float32 array, in memory or mapped from a temporary file.

    The file lies in ``TMPDIR``, has no name, and is deleted with the array.

    Args:
        shape: shape of the array.
        memory_bytes: largest array that is kept in memory.

    Raises:
        ScratchError: if the disk has no room for the file.
    """
    size = int(np.prod(shape, dtype=np.int64)) * 4
    if size <= memory_bytes:
        return np.empty(shape, np.float32)
    with temporary_file() as file:
        try:
            # Reserve the space now: on a full disk, writing to a mapped sparse file kills the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise ScratchError(
                f"{temporary_root()}: no room for {size:,} bytes of vectors of a long text "
                f"({error.strerror}); set TMPDIR to a folder on a larger disk"
            ) from error
        return np.memmap(file, np.float32, "w+", shape=shape)
