"""Matmuls of a recurrent layer: one weight a direction, many small products with it in turn.

Two ways. *Batched*: both directions in one torch.bmm. *In turn* (CPU, float32, weights that no
longer fit a core's cache): each direction by itself, with oneDNN, which is given the weight once in
the blocks it computes with; torch.bmm puts a weight into blocks at each of its calls, which costs up
to 40 % of a product with few rows. The way is chosen from sizes alone, never by timing, so that the
same machine always gives the same bits.
"""

import torch
from torch import Tensor

IN_TURN = 3 << 19  # bytes of a direction's weight, from which on its directions go in turn


def in_turn(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether products with a weight (directions, k, n) are made by direction."""
    return (
        weight.device.type == "cpu"
        and dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and weight[0].nbytes >= IN_TURN
    )


def product(a: Tensor, b: Tensor, dtype: torch.dtype, alone: bool) -> Tensor:
    """A (directions, m, k) times b (directions, k, n), multiplied in `dtype` -> a's own dtype.

    alone: with oneDNN; there is one direction then.
    """
    if alone:
        return _onednn(a[0].contiguous(), b[0].T).unsqueeze(0)
    return a.to(dtype).bmm(b.to(dtype)).to(a.dtype)


class Products:
    """Products of many (directions, rows, k) with one weight (directions, k, n).

    alone: as of `product`. Sums are float32 or wider, whatever `dtype` they are multiplied in.
    """

    def __init__(self, weight: Tensor, rows: int, dtype: torch.dtype, alone: bool) -> None:
        self._alone, self._same = alone, weight.dtype == dtype
        self._dtype = dtype
        if alone:
            pack = torch.ops.mkldnn._reorder_linear_weight
            self._weight: Tensor = pack(weight[0].T.contiguous(), rows)
        else:
            self._weight = weight.to(dtype)
            self._out = weight.new_empty(weight.shape[0], rows, weight.shape[2], dtype=dtype)

    def of(self, x: Tensor) -> Tensor:
        """X times the weight, in `dtype`; good until the next call."""
        if self._alone:
            return _onednn(x[0], self._weight).unsqueeze(0)
        return torch.bmm(x if self._same else x.to(self._dtype), self._weight, out=self._out)

    def into(self, x: Tensor, out: Tensor) -> None:
        """Write x times the weight to `out`, contiguous."""
        if self._alone or not self._same:
            out.copy_(self.of(x))
        else:
            torch.bmm(x, self._weight, out=out)

    def onto(self, x: Tensor, out: Tensor) -> None:
        """Add x times the weight to `out`, contiguous."""
        if self._alone or not self._same:
            out.add_(self.of(x))
        else:
            out.baddbmm_(x, self._weight)


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    """X (m, k) times the transpose of weight (n, k), which may be packed."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return out
