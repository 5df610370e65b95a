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

_WRITES_FLOAT32 = torch.version.hip is None and "dtype" in torch.ops.aten.bmm.overloads()
"""Whether a matmul of 16-bit operands on a GPU of NVIDIA can have a float32 result."""


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


def product(a: Tensor, b: Tensor, onednn: bool = False) -> Tensor:
    """Return a b, (directions, m, n).

    Args:
        a: (directions, m, k).
        b: (directions, k, n), of the same dtype.
        onednn: use oneDNN; there must be one direction.
    """
    if onednn:
        return _onednn(a[0].contiguous(), b[0].T).unsqueeze(0)
    return a.bmm(b)


def weight_gradient(a: Tensor, b: Tensor, dtype: torch.dtype, onednn: bool = False) -> Tensor:
    """Return a b as `product` does, in the dtype of a weight.

    A GPU's matmul writes float32 itself, without rounding its sums to 16 bits before.
    """
    if a.dtype == dtype:
        return product(a, b, onednn)
    if a.device.type == "cuda" and dtype == torch.float32 and _WRITES_FLOAT32:
        return torch.bmm(a, b, out_dtype=dtype)
    return a.bmm(b).to(dtype)


class FixedWeight:
    """A weight (directions, k, n), prepared to multiply many matrices (directions, rows, k) with it.

    Args:
        weight: the weight, in the dtype of the matrices.
        rows: number of rows of the matrices.
        onednn: as in `product`.
    """

    def __init__(self, weight: Tensor, rows: int, onednn: bool = False) -> None:
        self._by_onednn = onednn
        if onednn:
            pack = torch.ops.mkldnn._reorder_linear_weight
            self._weight: Tensor = pack(weight[0].T.contiguous(), rows)
        else:
            self._weight = weight
            self._out = weight.new_empty(weight.shape[0], rows, weight.shape[2])

    def times(self, x: Tensor) -> Tensor:
        """Return x weight; the next call may overwrite the result."""
        if self._by_onednn:
            return _onednn(x[0], self._weight).unsqueeze(0)
        return torch.bmm(x, self._weight, out=self._out)

    def write(self, x: Tensor, out: Tensor) -> None:
        """Write x weight to ``out``, whose last two dimensions are contiguous."""
        if self._by_onednn:
            out.copy_(self.times(x))
        else:
            torch.bmm(x, self._weight, out=out)

    def add(self, x: Tensor, out: Tensor) -> None:
        """Add x weight to ``out``, whose last two dimensions are contiguous."""
        if self._by_onednn:
            out.add_(self.times(x))
        else:
            out.baddbmm_(x, self._weight)


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    """Return x weight^T for x (m, k) and weight (n, k), which may be reordered."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return out
