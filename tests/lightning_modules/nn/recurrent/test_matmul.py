"""Products by oneDNN and by torch are the same."""

import pytest
import torch

from lightning_modules.nn.recurrent import matmul
from lightning_modules.nn.recurrent.matmul import (
    FixedWeight,
    linear,
    per_direction,
    product,
    times_transposed,
    weight_gradient,
)


@pytest.mark.parametrize("onednn", [False, True])
def test_products_equal_those_in_float64(onednn: bool) -> None:
    directions = 1 if onednn else 2
    torch.manual_seed(1)
    x, weight = torch.randn(directions, 5, 70), torch.randn(directions, 70, 33)
    expected = (x.double() @ weight.double()).float()
    fixed = FixedWeight(weight, 5, onednn)
    out = torch.ones(directions, 5, 33)

    torch.testing.assert_close(product(x, weight, onednn), expected)
    torch.testing.assert_close(fixed.times(x), expected)
    fixed.add(x, out)
    torch.testing.assert_close(out, 1 + expected)
    fixed.write(x, out)
    torch.testing.assert_close(out, expected)
    transposed = FixedWeight(weight.mT, 5, onednn)
    torch.testing.assert_close(
        transposed.times(expected), (expected.double() @ weight.mT.double()).float()
    )


def test_a_weights_gradient_has_the_dtype_of_the_weight() -> None:
    torch.manual_seed(1)
    x, weight = torch.randn(2, 5, 70).bfloat16(), torch.randn(2, 70, 33).bfloat16()
    exact = x.double() @ weight.double()

    assert weight_gradient(x, weight, torch.bfloat16).dtype == torch.bfloat16
    result = weight_gradient(x, weight, torch.float32)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, exact.float(), atol=0.05, rtol=2**-8)


def test_a_step_of_a_buffer_with_directions_first_is_written_and_added_to() -> None:
    torch.manual_seed(1)
    x, weight = torch.randn(2, 5, 70).bfloat16(), torch.randn(2, 70, 33).bfloat16()
    fixed, buffer = FixedWeight(weight, 5), torch.zeros(2, 4, 5, 33, dtype=torch.bfloat16)
    expected = (x.double() @ weight.double()).bfloat16()

    fixed.write(x, buffer[:, 1])
    fixed.add(x, buffer[:, 1])
    torch.testing.assert_close(buffer[:, 1], 2 * expected, atol=0.05, rtol=2**-6)
    assert not buffer[:, [0, 2, 3]].any()


def test_products_are_per_direction_if_the_weight_is_large_and_float32() -> None:
    large = torch.empty(2, 256, 4096)

    assert per_direction(large, torch.float32)
    assert not per_direction(large, torch.bfloat16)
    assert not per_direction(large[:, :64], torch.float32)
    assert not per_direction(large.double(), torch.float64)
    assert not per_direction(large.to("meta"), torch.float32)
    assert large[0].nbytes >= matmul.PER_DIRECTION


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_has_the_output_and_gradient_of_torchs(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    shapes = ((7, 5), (11, 5), (11,))
    ours = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    grad = torch.randn(7, 11, dtype=dtype)

    output, expected_output = linear(*ours), torch.nn.functional.linear(*theirs)
    output.backward(grad)
    expected_output.backward(grad)

    torch.testing.assert_close(output, expected_output)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(times_transposed(ours[0], ours[1]), expected_output - theirs[2])


def test_under_autocast_linear_uses_torchs() -> None:
    x, weight, bias = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
