"""Matmuls on a CPU: by oneDNN, where torch.mm and torch.bmm are slower.

`times_transposed` and `linear` are torch's own everywhere else. Measured on two AVX-512 cores in
float32, oneDNN makes 1.1 to 1.3 times the multiplications a second with a weight of 2048 x 4096, and
1.5 to 1.8 times with 128 to 256 dimensions (a softmax's logits, a convolution's windows).

A recurrent layer has one weight a direction, and many small products with it. Two ways. *Batched*: both directions in one torch.bmm. *In turn* (CPU, float32, weights that no
longer fit a core's cache): each direction by itself, with oneDNN, which is given the weight once in
the blocks it computes with; torch.bmm puts a weight into blocks at each of its calls, which costs up
to 40 % of a product with few rows. The way is chosen from sizes alone, never by timing, so that the
same machine always gives the same bits.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

IN_TURN = 3 << 19  # bytes of a direction's weight, from which on its directions go in turn


def by_onednn(x: Tensor) -> bool:
    """Whether products of x are made by oneDNN: in float32 on a CPU, not under autocast.

    A compiler chooses for itself.
    """
    return not torch.compiler.is_compiling() and (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )


def times_transposed(x: Tensor, weight: Tensor) -> Tensor:
    """X (m, k) times the transpose of weight (n, k) -> (m, n), without a gradient."""
    return _onednn(x, weight) if by_onednn(x) else x @ weight.T


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """F.linear: x (m, k), weight (n, k), bias (n,) -> x weight^T + bias, (m, n)."""
    if not by_onednn(x):
        return F.linear(x, weight, bias)
    found: Tensor = _Linear.apply(x, weight, bias)
    return found


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return _onednn(grad, weight.T), _onednn(grad.T, x.T), grad.sum(0)


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
