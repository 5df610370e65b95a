"""How the kernels of `convolution` divide types and filters between their programs."""

from functools import lru_cache
from typing import Any, NamedTuple

import torch

WIDEST = 128
"""Most numbers of a window that a program keeps, after rounding the width and `dim` to powers of 2."""
TILE = 1 << 15
"""Most bytes of weights that a program keeps."""
MOST_FILTERS = 128
"""Most filters of a program."""
TYPES = 128
"""Bytes of a column of the windows of a program's types."""
CHUNKS = 8
"""Most parts that a bucket is divided into. A program sums the gradient of its weights over one part."""
PLACES = 64
"""Positions of characters per program."""


class Layout(NamedTuple):
    """How the filters are divided between programs.

    Attributes:
        sizes: sizes of the filters of each width.
        numbers: number of filters of each width.
        dim: width of a character.
        taps: longest size, rounded up to a power of 2.
        depth: dim, rounded up to a power of 2 that a matmul of the GPU takes.
        itemsize: bytes of an operand's number.
        tile: filters of a program.
    """

    sizes: tuple[int, ...]
    numbers: tuple[int, ...]
    dim: int
    taps: int
    depth: int
    itemsize: int
    tile: int

    @property
    def tile_types(self) -> int:
        """Types of a program."""
        return TYPES // self.itemsize

    @property
    def blocks(self) -> int:
        """Number of blocks of filters."""
        return sum(-(-number // self.tile) for number in self.numbers)

    @property
    def weights(self) -> int:
        """Number of weights of all filters."""
        return self.dim * sum(s * n for s, n in zip(self.sizes, self.numbers, strict=True))

    @property
    def columns(self) -> int:
        """Numbers of the windows of all widths."""
        return self.dim * sum(self.sizes)

    @property
    def is_aligned(self) -> bool:
        """Whether each width begins at a multiple of 16 filters."""
        return all(number % 16 == 0 for number in self.numbers)

    def table(self, by_blocks: bool) -> tuple[int, ...]:
        """Return six constants of each width.

        They are the size, the number of filters, the first weight, the first filter, the first column, and
        the first block of filters, or, if not by_blocks, the number of the width.
        """
        weight = column = filter_ = block = 0
        constants: list[int] = []
        for size, number in zip(self.sizes, self.numbers, strict=True):
            constants += size, number, weight, filter_, column, block
            weight += size * self.dim * number
            filter_ += number
            column += size * self.dim
            block += -(-number // self.tile) if by_blocks else 1
        return tuple(constants)

    def blocks_of(self, types: int) -> int:
        """Return the number of blocks of types."""
        return -(-types // self.tile_types)

    def chunks_of(self, types: int) -> tuple[int, int]:
        """Return the number of parts of a bucket, and the types of each but the last."""
        chunk = max(2, -(-self.blocks_of(types) // CHUNKS)) * self.tile_types
        return -(-types // chunk), chunk

    def arguments(self, kernel: str) -> dict[str, Any]:
        """Return the constants of a kernel, and the options with which it is compiled.

        The numbers of types, warps and stages are the largest ones without spills, and within the shared
        memory of GPUs of compute capability 8.6.
        """
        by_blocks = kernel in ("maxima", "d_weights")
        common = {"table": self.table(by_blocks), "dim": self.dim, "depth": self.depth}
        if kernel == "d_places":
            return common | {"columns": self.columns, "tile": PLACES, "num_warps": 4}
        tile, wide = self.tile, self.itemsize > 2  # products in float32 need more registers
        own: dict[str, tuple[int, int, int, dict[str, int]]] = {
            "maxima": (self.tile_types, tile, 2, {}),
            "d_weights": (self.tile_types // 2, tile, 1 if wide else 2, {"weights": self.weights}),
            "d_windows": (self.tile_types, tile // 4 if wide else tile, 1, {"columns": self.columns}),
        }  # fmt: skip
        tile_types, tile_filters, stages, more = own[kernel]
        return common | more | {
            "filters": sum(self.numbers), "taps": self.taps, "aligned": self.is_aligned,
            "tile_types": tile_types, "tile_filters": tile_filters,
            "num_warps": 8, "num_stages": stages,
        }  # fmt: skip


@lru_cache
def layout_of(
    sizes: tuple[int, ...], numbers: tuple[int, ...], dim: int, dtype: torch.dtype
) -> Layout | None:
    """Return the layout of filters; None if their windows are too wide for the kernels.

    Args:
        sizes: sizes of the filters of each width.
        numbers: number of filters of each width.
        dim: width of a character.
        dtype: dtype of the operands.
    """
    taps, depth = _power_of_2(max(sizes)), max(16, _power_of_2(dim))
    if taps * depth > WIDEST:
        return None
    tile = min(MOST_FILTERS, TILE // (taps * depth * dtype.itemsize))
    return Layout(sizes, numbers, dim, taps, depth, dtype.itemsize, tile)


def _power_of_2(n: int) -> int:
    """Return the lowest power of 2 that is at least n, for n >= 1."""
    return 1 << (n - 1).bit_length()
