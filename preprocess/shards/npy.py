"""Parse the bytes of an npy file whose dtype and shape are known, without trusting its header."""

import ast
from typing import Any

import numpy as np
import numpy.typing as npt

_MAGIC = b"\x93NUMPY\x01\x00"


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
    dtype = np.dtype(dtype)
    begin = 10 + int.from_bytes(data[8:10], "little")
    try:
        if not data.startswith(_MAGIC) or len(data) < begin:
            raise ValueError("it does not begin as one")
        header = ast.literal_eval(data[10:begin].decode("latin-1"))
        stored, shape = np.dtype(header["descr"]), tuple(header["shape"])
    # literal_eval raises MemoryError for deeply nested brackets.
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"not an npy file ({reason:.80})") from error
    if stored != dtype or len(shape) != 1 or (length is not None and shape[0] != length):
        wanted = "any length" if length is None else f"length {length:,}"
        raise ValueError(f"an array {stored} of shape {shape}, not {dtype} of {wanted}")
    if len(data) - begin != shape[0] * dtype.itemsize:
        raise ValueError(f"{len(data):,} bytes, too many or too few for its {shape[0]:,} rows")
    return np.frombuffer(data, dtype, offset=begin)
