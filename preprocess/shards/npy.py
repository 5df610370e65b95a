"""Parse npy files that may be damaged or come from an untrusted source.

`numpy.load` evaluates the header as a Python literal and allocates the size that it states. A damaged header
then raises errors of many types, and a malicious one can exhaust memory or unpickle code. Here the header
is compared with the one that NumPy writes for the expected dtype.
"""

import re
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_START = re.compile(rb"\x93NUMPY\x01\x00(..)", re.DOTALL)

LONGEST = 4096
"""Maximum bytes of a header, including the magic string and the header's length."""


class NpyHeader(NamedTuple):
    """The contents of a header.

    Attributes:
        shape: shape of the array.
        start: byte offset of the array in the file.
    """

    shape: tuple[int, ...]
    start: int


def read_header(data: bytes, dtype: npt.DTypeLike) -> NpyHeader | None:
    """Return the header of an npy file, or None if it does not describe a C-order array of ``dtype``.

    Args:
        data: the first `LONGEST` bytes of the file, or the whole file if it is shorter.
        dtype: expected dtype of the array.
    """
    match = _START.match(data)
    start = 10 + int.from_bytes(match[1], "little") if match else len(data) + 1
    if start > len(data):
        return None
    descr = re.escape(repr(np.lib.format.dtype_to_descr(np.dtype(dtype))))
    header = (
        rf"\{{'descr': {descr}, 'fortran_order': False, 'shape': \(([0-9, ]{{1,60}})\), \}} *\n"
    )
    try:
        found = re.fullmatch(header, data[10:start].decode("ascii"))
        shape = tuple(int(n) for n in found[1].split(",") if n.strip()) if found else ()
    except ValueError:
        return None
    return NpyHeader(shape, start) if shape else None


def parse_npy(data: bytes, dtype: npt.DTypeLike, length: int | None = None) -> npt.NDArray[Any]:
    """Return the one-dimensional array in an npy file, read-only.

    Args:
        data: content of the file.
        dtype: expected dtype.
        length: expected length; None accepts any.

    Raises:
        ValueError: the file is damaged, or has another dtype or shape.
    """
    dtype = np.dtype(dtype)
    header = read_header(data[:LONGEST], dtype)
    if header is None:
        raise ValueError(f"not an npy file of {dtype.name}")
    shape, start = header
    if len(shape) != 1 or (length is not None and shape[0] != length):
        wanted = "any length" if length is None else f"length {length:,}"
        raise ValueError(f"an array of shape {shape}, not of {wanted}")
    if len(data) - start != shape[0] * dtype.itemsize:
        raise ValueError(f"{len(data):,} bytes, too many or too few for its {shape[0]:,} rows")
    return np.frombuffer(data, dtype, offset=start)
