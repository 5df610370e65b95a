"""Parse the bytes of an npy file whose dtype and shape are known, without trusting its header."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt


def parse_npy(data: bytes, dtype: npt.DTypeLike, length: int | None = None) -> npt.NDArray[Any]:
    """Return the one-dimensional array in an npy file, read-only.

    `numpy.load` allocates what the header says, and raises errors of many types for a damaged header.

    Args:
        data: content of the file.
        dtype: the dtype that it must have.
        length: the length that the array must have; None means any.

    Raises:
        ValueError: the file is damaged, or has another dtype or shape.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"its npy version is {version}")
        shape, _, stored = np.lib.format.read_array_header_1_0(file)
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"not an npy file ({reason:.80})") from error
    dtype = np.dtype(dtype)
    found = (len(data) - file.tell()) // max(dtype.itemsize, 1)
    if stored != dtype or len(shape) != 1 or (length is not None and shape[0] != length):
        wanted = "any length" if length is None else f"length {length:,}"
        raise ValueError(f"an array {stored} of shape {shape}, not {dtype} of {wanted}")
    if found != shape[0] or (len(data) - file.tell()) % dtype.itemsize:
        raise ValueError(f"{len(data):,} bytes, too many or too few for its {shape[0]:,} rows")
    return np.frombuffer(data, dtype, offset=file.tell())
