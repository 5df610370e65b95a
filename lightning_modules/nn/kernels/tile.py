"""How the rows and columns of a recurrent step are divided between the programs of a kernel."""

from typing import NamedTuple

ELEMENTS = 1024
"""Elements of a program: with 4 warps, a thread has 8, which are 16 bytes of bfloat16."""
ROWS = 8
"""Most rows of a program. They share what depends on the column only, the biases."""


class Tile(NamedTuple):
    """The part of a (directions, rows, size) tensor that a program computes, in one direction."""

    rows: int
    columns: int

    @classmethod
    def of(cls, rows: int, size: int) -> "Tile":
        """Return the tile for a number of rows and columns; both numbers are powers of 2."""
        height = min(ROWS, _power_of_2(rows))
        return cls(height, min(ELEMENTS // height, max(16, _power_of_2(size))))

    @property
    def warps(self) -> int:
        """Number of warps of a program."""
        return max(1, self.rows * self.columns // 256)

    def blocks(self, rows: int, size: int) -> tuple[int, int]:
        """Return the number of programs along the rows and along the columns."""
        return -(-rows // self.rows), -(-size // self.columns)


def _power_of_2(n: int) -> int:
    """Return the lowest power of 2 that is at least n, for n >= 1."""
    return 1 << (n - 1).bit_length()
