"""Both ways of multiplying are the same product."""

import pytest
import torch

from lightning_modules.nn.recurrent import matmul
from lightning_modules.nn.recurrent.matmul import (
    Products,
    in_turn,
    linear,
    product,
    times_transposed,
)


@pytest.mark.parametrize("alone", [False, True])
def test_products(alone: bool) -> None:
    directions = 1 if alone else 2
    torch.manual_seed(1)
    x, weight = torch.randn(directions, 5, 70), torch.randn(directions, 70, 33)
    expected = (x.double() @ weight.double()).float()
    products = Products(weight, 5, torch.float32, alone)
    out = torch.ones(directions, 5, 33)

    torch.testing.assert_close(product(x, weight, torch.float32, alone), expected)
    torch.testing.assert_close(products.of(x), expected)
    products.onto(x, out)
    torch.testing.assert_close(out, 1 + expected)
    products.into(x, out)
    torch.testing.assert_close(out, expected)
    transposed = Products(weight.mT, 5, torch.float32, alone)
    torch.testing.assert_close(
        transposed.of(expected), (expected.double() @ weight.mT.double()).float()
    )


def test_products_in_bf16_are_added_in_float32() -> None:
    torch.manual_seed(1)
    x, weight = torch.randn(2, 5, 70), torch.randn(2, 70, 33)
    expected = (x.bfloat16() @ weight.bfloat16()).float()
    products = Products(weight, 5, torch.bfloat16, alone=False)
    out = torch.full((2, 5, 33), 1000.0)

    assert products.of(x).dtype == torch.bfloat16
    result = product(x, weight, torch.bfloat16, alone=False)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)
    products.onto(x, out)
    torch.testing.assert_close(out, 1000 + expected)
    products.into(x, out)
    torch.testing.assert_close(out, expected)


def test_directions_go_in_turn_where_a_weight_is_large_and_float32() -> None:
    large = torch.empty(2, 256, 4096)

    assert in_turn(large, torch.float32)
    assert not in_turn(large, torch.bfloat16)
    assert not in_turn(large[:, :64], torch.float32)
    assert not in_turn(large.double(), torch.float64)
    assert not in_turn(large.to("meta"), torch.float32)
    assert large[0].nbytes >= matmul.IN_TURN


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_is_torchs_in_output_and_gradient(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    shapes = ((7, 5), (11, 5), (11,))
    ours = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    theirs = [one.detach().clone().requires_grad_() for one in ours]
    grad = torch.randn(7, 11, dtype=dtype)

    made, wanted = linear(*ours), torch.nn.functional.linear(*theirs)
    made.backward(grad)
    wanted.backward(grad)

    torch.testing.assert_close(made, wanted)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(times_transposed(ours[0], ours[1]), wanted - theirs[2])


def test_under_autocast_linear_is_torchs_own() -> None:
    x, weight, bias = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
