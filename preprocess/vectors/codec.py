"""How vectors are stored: as float32, float16, or int8 with a scale a vector."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import UserError

Vectors = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]

DTYPES = ("float32", "float16", "int8")
LARGEST = 127


class CacheError(UserError):
    """A cache that cannot be written or read as asked; the message names the file."""


@dataclass(frozen=True)
class Codec:
    """Vectors of ``dim`` dimensions to bytes, little-endian, and back.

    int8: a float32 scale, max |x| / 127, then x / scale rounded; of normally distributed vectors of
    128 dimensions that is a relative rms error of 0.6 %.

    Raises:
        CacheError: ``dtype`` is none of float32, float16, int8.
    """

    dtype: str
    dim: int

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise CacheError(
                f"vectors cannot be stored as {self.dtype!r}; choose {', '.join(DTYPES)}"
            )

    @property
    def vector_bytes(self) -> int:
        """Bytes of a stored vector."""
        return self._stored.itemsize

    @property
    def given(self) -> np.dtype[np.floating[Any]]:
        """The type that vectors are read as."""
        return np.dtype("<f4" if self.dtype == "int8" else self.dtype).newbyteorder("<")

    @property
    def _stored(self) -> np.dtype[Any]:
        if self.dtype == "int8":
            return np.dtype([("scale", "<f4"), ("values", "i1", (self.dim,))])
        return np.dtype((self.given, (self.dim,)))

    def encode(self, vectors: Vectors) -> Bytes:
        """(..., dim) float32 -> the bytes of the vectors in order.

        Raises:
            CacheError: a value is beyond what float16 can hold.
        """
        if self.dtype == "int8":
            flat = vectors.reshape(-1, self.dim)
            stored = np.empty(len(flat), self._stored)
            largest = np.abs(flat).max(1, initial=0)
            stored["scale"] = largest / np.float32(LARGEST)
            scale = np.where(largest > 0, largest / np.float32(LARGEST), 1)
            stored["values"] = np.rint(flat / scale[:, None])
            return stored.view(np.uint8).reshape(-1)
        with np.errstate(over="ignore"):
            values = vectors.astype(self.given, order="C")
        if self.dtype == "float16" and not np.isfinite(values).all():
            raise CacheError(
                f"a vector holds {np.abs(vectors).max():.4g}, beyond float16; set embed.dtype=float32"
            )
        return values.reshape(-1).view(np.uint8)

    def decode(self, data: Bytes, shape: tuple[int, ...]) -> Vectors:
        """The vectors (..., dim) of ``shape``: a view of ``data``; of int8 new float32 values."""
        if self.dtype != "int8":
            return data.view(self.given).reshape(shape)
        stored = data.view(self._stored)
        values: Vectors = stored["values"] * stored["scale"][:, None]
        return values.reshape(shape)
