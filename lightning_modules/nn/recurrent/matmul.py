"""Matrix products that use oneDNN on a CPU in float32, where torch.mm and torch.bmm are slower.

Measured on two AVX-512 cores, oneDNN is 1.1 to 1.3 times as fast with a weight of 2048 x 4096, and 1.5
to 1.8 times with an inner dimension of 128 to 256 (logits of a softmax, windows of a convolution).

A recurrent layer multiplies many small matrices with one weight per direction. There are two ways:

- batched: one torch.bmm for both directions.
- per direction (CPU, float32, weights larger than a core's cache): oneDNN, with the weight reordered
  once into the blocks that oneDNN computes with. torch.bmm reorders it in each call, which takes up to
  40 % of the time if there are few rows.

The choice depends on sizes only, not on timing, so results on the same machine are the same to the bit.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PER_DIRECTION = 3 << 19
"""Minimum size of one direction's weight, in bytes, to multiply per direction."""


def by_onednn(x: Tensor) -> bool:
    """Return True if products with x use oneDNN: float32, on a CPU, outside autocast and torch.compile."""
    return not torch.compiler.is_compiling() and (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )


def times_transposed(x: Tensor, weight: Tensor) -> Tensor:
    """Return x weight^T, (m, n), for x (m, k) and weight (n, k); not differentiable."""
    return _onednn(x, weight) if by_onednn(x) else x @ weight.T


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x weight^T + bias, (m, n), for x (m, k), weight (n, k), bias (n,), as F.linear does."""
    if not by_onednn(x):
        return F.linear(x, weight, bias)
    result: Tensor = _Linear.apply(x, weight, bias)
    return result


class Linear(nn.Linear):
    """nn.Linear with a bias, computed by `linear`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in nn.Linear)
        """Map (m, in_features) to (m, out_features)."""
        return linear(input, self.weight, self.bias)


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


def per_direction(weight: Tensor, dtype: torch.dtype) -> bool:
    """Return True if products with a weight (directions, k, n) are computed per direction.

    Args:
        weight: the weight.
        dtype: dtype of the multiplication.
    """
    return (
        weight.device.type == "cpu"
        and dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and weight[0].nbytes >= PER_DIRECTION
    )


def product(a: Tensor, b: Tensor, dtype: torch.dtype, onednn: bool) -> Tensor:
    """Return a b, (directions, m, n), in the dtype of a.

    Args:
        a: (directions, m, k).
        b: (directions, k, n).
        dtype: dtype of the multiplication.
        onednn: use oneDNN; there must be one direction.
    """
    if onednn:
        return _onednn(a[0].contiguous(), b[0].T).unsqueeze(0)
    return a.to(dtype).bmm(b.to(dtype)).to(a.dtype)


class FixedWeight:
    """A weight (directions, k, n), prepared to multiply many matrices (directions, rows, k) with it.

    Args:
        weight: the weight, float32 or wider.
        rows: number of rows of the matrices.
        dtype: dtype of the multiplication.
        onednn: as in `product`.
    """

    def __init__(self, weight: Tensor, rows: int, dtype: torch.dtype, onednn: bool) -> None:
        self._by_onednn, self._same = onednn, weight.dtype == dtype
        self._dtype = dtype
        if onednn:
            pack = torch.ops.mkldnn._reorder_linear_weight
            self._weight: Tensor = pack(weight[0].T.contiguous(), rows)
        else:
            self._weight = weight.to(dtype)
            self._out = weight.new_empty(weight.shape[0], rows, weight.shape[2], dtype=dtype)

    def times(self, x: Tensor) -> Tensor:
        """Return x weight in ``dtype``; the next call may overwrite the result."""
        if self._by_onednn:
            return _onednn(x[0], self._weight).unsqueeze(0)
        return torch.bmm(x if self._same else x.to(self._dtype), self._weight, out=self._out)

    def write(self, x: Tensor, out: Tensor) -> None:
        """Write x weight to ``out``, which is contiguous and has the weight's dtype."""
        if self._by_onednn or not self._same:
            out.copy_(self.times(x))
        else:
            torch.bmm(x, self._weight, out=out)

    def add(self, x: Tensor, out: Tensor) -> None:
        """Add x weight to ``out``, which is contiguous and has the weight's dtype."""
        if self._by_onednn or not self._same:
            out.add_(self.times(x))
        else:
            out.baddbmm_(x, self._weight)


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    """Return x weight^T for x (m, k) and weight (n, k), which may be reordered."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return out
