"""Tiles of the recurrent kernels."""

import pytest

from lightning_modules.nn.kernels.tile import Tile


@pytest.mark.parametrize(
    ("rows", "size", "tile", "warps"),
    [(1, 5, (1, 16), 1), (1, 4096, (1, 1024), 4), (3, 40, (4, 64), 1), (300, 4096, (8, 128), 4)],
)
def test_a_tile_has_at_most_eight_elements_a_thread(
    rows: int, size: int, tile: tuple[int, int], warps: int
) -> None:
    found = Tile.of(rows, size)
    assert (found, found.warps) == (tile, warps)
    assert found.blocks(rows, size) == (-(-rows // tile[0]), -(-size // tile[1]))
