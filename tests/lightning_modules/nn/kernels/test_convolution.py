"""The fused character CNN in Triton's interpreter, on the CPU, against the eager form in float64."""

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from lightning_modules.config import CharCNNInputConfig
from lightning_modules.nn.inputs import char_cnn, fused_char_cnn
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.kernels import convolution, convolution_layout
from lightning_modules.nn.kernels.traffic import TRAFFIC

from .conftest import Interpreter

pytest.importorskip("triton", reason="Triton is not installed")

INTERPRETED = ("convolution_triton", "highway_triton")
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
# Of one rounding to the dtype; the interpreter truncates to bfloat16, where a GPU rounds.
ROUNDING = {BF16: 2**-7, FP16: 2**-10, FP32: 4e-6}
PAD, CHARACTERS = 3, 11


def example(
    filters: list[list[int]], dim: int, shapes: list[tuple[int, int]], dtype: torch.dtype
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Return buckets of random words, and characters, bias and filters whose numbers fit the dtype."""
    draw = torch.Generator().manual_seed(len(filters) + dim)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(dtype).float().requires_grad_()

    buckets = []
    for shape in shapes:
        ids = torch.randint(CHARACTERS, shape, generator=draw)
        ends = torch.randint(shape[1] + 1, shape[:1], generator=draw)
        ids[torch.arange(shape[1]) >= ends[:, None]] = PAD
        buckets.append(ids)
    weights = [numbers(size * dim, number) for size, number in filters]
    count = sum(number for _, number in filters)
    return tuple(buckets), [numbers(CHARACTERS, dim), numbers(count), *weights]


def fused(
    buckets: tuple[Tensor, ...], most: int, leaves: list[Tensor], dtype: torch.dtype
) -> Tensor:
    return fused_char_cnn.fused_convolution(
        buckets, most, PAD, leaves[0], leaves[1], leaves[2:], dtype
    )


def eager(buckets: tuple[Tensor, ...], most: int, leaves: list[Tensor]) -> Tensor:
    buckets = tuple(ids for ids in buckets if len(ids))
    result: Tensor = char_cnn._Convolution.apply(buckets, most, PAD, leaves[0], *leaves[2:])
    return result + leaves[1]


ALL_WIDTHS = [[1, 1], [2, 3], [3, 16], [4, 17], [5, 5], [6, 2], [7, 35]]


@pytest.fixture(autouse=True)
def small_tiles() -> Iterator[None]:
    """Divide small examples between several programs."""
    convolution_layout.layout_of.cache_clear()
    small = {"TILE": 1 << 12, "TYPES": 64, "PLACES": 16}
    with (
        mock.patch.multiple(convolution_layout, **small),
        mock.patch.object(convolution, "PLACES", 16),
    ):
        yield
    convolution_layout.layout_of.cache_clear()


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize(
    ("filters", "dim", "most", "shapes", "dtype"),
    [
        (ALL_WIDTHS[::3], 5, 8, [(1, 2), (17, 3), (0, 8), (2, 5)], BF16),
        (ALL_WIDTHS, 16, 7, [(2, 7)], FP32),
        ([[3, 37], [1, 1]], 4, 300, [(33, 2)], FP16),
        ([[8, 16], [2, 48]], 16, 8, [(1, 0), (2, 8)], BF16),
        ([[1, 1]], 1, 3, [(1, 1)], FP32),
    ],
)
def test_values_and_gradients_are_the_exact_ones_but_for_a_rounding(
    filters: list[list[int]],
    dim: int,
    most: int,
    shapes: list[tuple[int, int]],
    dtype: torch.dtype,
) -> None:
    buckets, leaves = example(filters, dim, shapes, dtype)
    y = fused(buckets, most, leaves, dtype)
    d_y = torch.randn(y.shape).to(dtype)
    wide = [leaf.double().detach().requires_grad_() for leaf in leaves]
    expected = eager(buckets, most, wide)

    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), expected, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])
    gradients = torch.autograd.grad(y, leaves, d_y)
    exact = torch.autograd.grad(expected, wide, d_y.double())
    for ours, theirs, leaf in zip(gradients, exact, leaves, strict=True):
        assert (ours.dtype, ours.shape) == (leaf.dtype, leaf.shape)
        assert (ours - theirs).norm() <= ROUNDING[dtype] * theirs.norm() + 1e-9


@pytest.mark.usefixtures("interpreter")
def test_the_first_of_equal_windows_has_the_gradient_as_in_eager() -> None:
    _, leaves = example([[1, 3], [2, 2]], 4, [(1, 1)], FP32)
    buckets = (torch.tensor([[5, 6, 5, 6, 5], [PAD, PAD, PAD, PAD, PAD]]),)
    ys = fused(buckets, 9, leaves, FP32), eager(buckets, 9, leaves)
    windows = ys[0].grad_fn.saved_tensors[2]
    assert windows[1].tolist() == [0] * 5
    assert set(windows[0].tolist()) <= {0, 1, 4, 5}
    torch.testing.assert_close(*([y, *torch.autograd.grad(y.sum(), leaves)] for y in ys))


@pytest.mark.usefixtures("interpreter")
def test_nan_stays_in_the_maximum_and_in_the_highway_layer() -> None:
    buckets, leaves = example([[1, 3], [2, 2]], 4, [(3, 4)], BF16)
    buckets[0][1, 2] = 7
    buckets[0][[0, 2]] = 4
    with torch.no_grad():
        leaves[0][7, 1] = torch.nan

    y = fused(buckets, 9, leaves, BF16)
    out = fused_char_cnn.fused_highway(torch.cat([y, y.new_ones(y.shape)], 1), torch.ones_like(y))
    assert y.isnan().tolist() == out.isnan().tolist() == [[False] * 5, [True] * 5, [False] * 5]
    out = fused_char_cnn.fused_highway(torch.cat([y.new_ones(y.shape), y], 1), torch.ones_like(y))
    assert y.isnan().equal(out.isnan())


@pytest.mark.usefixtures("interpreter")
def test_the_gradient_of_a_frozen_part_is_not_computed() -> None:
    buckets, leaves = example([[1, 3], [2, 2]], 4, [(3, 4)], FP32)
    called: list[str] = []

    def spy(name: str) -> Callable[..., None]:
        real = getattr(fused_char_cnn, name)
        return lambda *arguments: called.append(name) or real(*arguments)

    names = ["convolution_d_weights", "convolution_d_windows", "convolution_d_places"]
    with mock.patch.multiple(fused_char_cnn, **{name: spy(name) for name in names}):
        for kept, expected in ((0, names[1:]), (1, []), (3, names[:1])):
            called.clear()
            y = fused(buckets, 9, [x.requires_grad_(i == kept) for i, x in enumerate(leaves)], FP32)
            y.sum().backward()
            assert called == expected
            assert [x.grad is not None for x in leaves] == [i == kept for i in range(4)]
            leaves[kept].grad = None


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("dtype", [BF16, FP16, FP32])
@pytest.mark.parametrize(("rows", "width"), [(0, 3), (3, 1), (2, 37), (1, 1030)])
def test_the_highway_kernels_are_exact_but_for_a_rounding(
    rows: int, width: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(width)
    both = (torch.randn(rows, 2 * width) * 4).to(dtype).requires_grad_()
    x, d_y = (torch.randn(rows, width).to(dtype) for _ in range(2))
    wide = [leaf.double().detach().requires_grad_() for leaf in (both, x.requires_grad_())]
    gate, transform = wide[0].chunk(2, 1)

    y = fused_char_cnn.fused_highway(both, x)
    expected = torch.lerp(wide[1], transform.relu(), gate.sigmoid())
    runs = [
        [y, *torch.autograd.grad(y, [both, x], d_y)],
        [expected, *torch.autograd.grad(expected, wide, d_y.double())],
    ]
    for ours, theirs in zip(*runs, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), theirs, rtol=ROUNDING[dtype], atol=1e-5)


def char_cnn_of(**options: Any) -> CharCNN:
    torch.manual_seed(1)
    config = {"dim": 4, "max_characters": 8, "filters": [[1, 4], [3, 8]]} | options
    return CharCNN(CharCNNInputConfig.model_validate(config), 5, CHARACTERS, PAD)


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize(("activation", "autocast"), [("relu", True), ("tanh", False)])
def test_a_char_cnn_trains_with_the_kernels_as_without(activation: str, autocast: bool) -> None:
    net = char_cnn_of(activation=activation, highway=1)
    buckets, _ = example([[1, 1]], 4, [(9, 3), (4, 5)], FP32)
    parameters = list(net.parameters())
    runs = []
    for usable in (True, True, False):
        with (
            mock.patch.object(char_cnn, "are_usable", return_value=usable),
            torch.autocast("cpu", BF16, enabled=autocast),
        ):
            y = net.vectors(buckets)
        runs.append([y, *torch.autograd.grad(y.square().sum(), parameters)])

    # Without the kernels, the maximum is that of values rounded to bfloat16, so it may be elsewhere.
    limits = [0.02, *[0.3] * len(parameters)] if autocast else [1e-5] * (1 + len(parameters))
    for ours, again, theirs, limit in zip(*runs, limits, strict=True):
        assert ours.dtype == FP32
        assert torch.equal(ours, again)
        assert (ours - theirs).norm() <= limit * theirs.norm()
    assert not torch.equal(runs[0][0], runs[2][0])


def test_the_kernels_are_not_used_for_other_dtypes_or_wide_windows() -> None:
    used = char_cnn._fused_dtype
    net = char_cnn_of()
    table, filters = net.characters(), list(net.filters)
    assert used(table, filters) is None
    with mock.patch.object(char_cnn, "are_usable", return_value=True):
        assert used(table, filters) == FP32
        assert used(table.double(), filters) is None
        with torch.autocast("cpu", BF16):
            assert used(table, filters) == BF16
        wide = char_cnn_of(dim=17, filters=[[4, 4]])
        assert used(wide.characters(), list(wide.filters)) == FP32
        wide = char_cnn_of(dim=33, filters=[[5, 4]])
        assert used(wide.characters(), list(wide.filters)) is None


@pytest.mark.parametrize(
    ("shape", "filters", "dim"), [((3, 4), [[1, 3], [6, 20]], 4), ((18, 2), [[2, 16]], 16)]
)
def test_the_traffic_of_the_kernels_is_what_they_load_and_store(
    interpreter: Interpreter, shape: tuple[int, int], filters: list[list[int]], dim: int
) -> None:
    (ids,), (table, bias, *weights) = example(filters, dim, [shape], BF16)
    sizes, numbers = zip(*filters, strict=True)
    (types, length), options = shape, (sizes, numbers, 7, PAD)
    flat = torch.cat([w.detach().reshape(-1) for w in weights]).to(BF16)
    table, bias = table.detach().to(BF16), bias.detach()
    y = torch.zeros(types, len(bias), dtype=BF16)
    windows = torch.zeros(y.shape, dtype=torch.uint8)
    layout = convolution_layout.layout_of(sizes, numbers, dim, BF16)
    assert layout
    parts = torch.zeros(layout.chunks_of(types)[0], len(flat))
    d_windows = torch.zeros(types, length + 1, dim * sum(sizes), dtype=BF16)
    d_places = torch.zeros(types * (length + max(sizes)), dim)
    seen = torch.zeros(len(d_places), dtype=torch.int64)
    both = torch.zeros(types, 2 * len(bias), dtype=BF16)
    for name, arguments in {
        "convolution_maxima": (ids, table, flat, bias, y, windows, *options),
        "convolution_d_weights": (ids, table, y, windows, parts, *options),
        "convolution_d_windows": (flat, y, windows, d_windows, sizes, numbers),
        "convolution_d_places": (ids, d_windows, d_places, seen, sizes, PAD),
        "highway_forward": (both, y),
        "highway_backward": (both, y, y),
    }.items():
        interpreter.reset()
        getattr(torch.ops.biloom, name)(*arguments)
        assert interpreter.traffic == TRAFFIC[f"biloom::{name}"](*arguments), name


def test_shapes_depend_on_shapes_only_and_no_value_is_read() -> None:
    buckets, leaves = example(ALL_WIDTHS, 4, [(3, 4), (0, 2), (2, 9)], FP32)
    leaves = [leaf.detach().to("meta").requires_grad_() for leaf in leaves]

    y = fused(tuple(ids.to("meta") for ids in buckets), 9, leaves, BF16)
    gradients = torch.autograd.grad(y.sum(), leaves)

    assert y.shape == (5, len(leaves[1]))
    assert [g.shape for g in gradients] == [leaf.shape for leaf in leaves]
