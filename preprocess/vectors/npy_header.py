"""The header of an npy file, compared with what it must be instead of being interpreted.

NumPy reads a header as a Python literal, which a damaged or a stranger's file can make deep, huge or of
a type that is loaded as code.
"""

import re
from typing import NamedTuple

import numpy as np

_START = re.compile(rb"\x93NUMPY\x01\x00(..)", re.DOTALL)

LONGEST = 4096
"""Bytes of the longest header, including what stands before it."""


class NpyHeader(NamedTuple):
    """What a header tells.

    Attributes:
        shape: shape of the array.
        start: bytes before the array.
    """

    shape: tuple[int, ...]
    start: int


def read_header(data: bytes, dtype: np.dtype[np.generic]) -> NpyHeader | None:
    """Return the header at the start of a file, or None if it is not that of a C-order array of dtype.

    Args:
        data: the first `LONGEST` bytes of the file, or the whole of a shorter file.
        dtype: dtype of the array.
    """
    match = _START.match(data)
    start = 10 + int.from_bytes(match[1], "little") if match else len(data) + 1
    if start > len(data):
        return None
    descr = re.escape(repr(np.lib.format.dtype_to_descr(dtype)))
    header = (
        rf"\{{'descr': {descr}, 'fortran_order': False, 'shape': \(([0-9, ]{{1,60}})\), \}} *\n"
    )
    try:
        found = re.fullmatch(header, data[10:start].decode("ascii"))
        shape = tuple(int(n) for n in found[1].split(",") if n.strip()) if found else ()
    except ValueError:
        return None
    return NpyHeader(shape, start) if shape else None
