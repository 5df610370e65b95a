"""The mean of gradients over ranks, whose bits do not depend on the layout of DDP's buckets."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Together = Callable[[str, int], list[tuple[int, str]]]  # of conftest.py
SHAPES = [(7,), (3, 5), (1,), (300, 1000), (2, 2), (40_001,)]

SETTING = """
from lightning_modules.training.ranks.ordered_sum import OrderedDDPStrategy, ordered_mean
from tests.lightning_modules.training.ranks.test_ordered_sum import SHAPES, drawn, mean

expected = mean(world)
"""
CLASS = """
class Bucket:
    def __init__(self, flat):
        self.flat = flat

    def buffer(self):
        return self.flat
"""
BUCKETS = """
flat, whole = (torch.cat([t.flatten() for t in ts]) for ts in (drawn(rank), expected))
draw = torch.Generator().manual_seed(1)
for size in (1, 2, world, world + 1, 1000, len(flat)):
    order = torch.randperm(len(flat), generator=draw)[: max(10 * size, 10)]
    for places in order.split(size):
        bucket = Bucket(flat[places])
        assert ordered_mean(None, bucket).wait() is bucket.flat
        assert torch.equal(bucket.flat, whole[places])
dist.destroy_process_group()
"""
BF16 = """
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

own, theirs = (Bucket(torch.cat([t.flatten() for t in drawn(rank)])) for _ in range(2))
exact = torch.cat([t.flatten() for t in expected])
for number in range(world):  # what is not finite on one rank is so on all
    for bucket in (own, theirs):
        bucket.flat[number] = float("nan") if number == rank else 1.0
assert ordered_mean(torch.bfloat16, own).wait() is own.flat
assert own.flat[:world].isnan().all()
torch.testing.assert_close(own.flat[world:], exact[world:], rtol=2**-7, atol=2**-7)
assert not torch.equal(own.flat[world:], exact[world:])
ranks = [torch.empty_like(own.flat) for _ in range(world)]
dist.all_gather(ranks, own.flat)
assert all(torch.equal(one[world:], own.flat[world:]) for one in ranks)
if world == 2:  # then, torch's hook for GPUs rounds alike
    found = bf16_compress_hook(None, theirs).wait()
    assert torch.equal(found[world:], own.flat[world:])
dist.destroy_process_group()
"""
DDP = """
import pytorch_lightning as pl
from lightning_fabric.plugins.environments import LightningEnvironment

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weights = torch.nn.ParameterList([torch.zeros(shape) for shape in SHAPES])

    def forward(self):
        # The gradient of each weight is what it is multiplied with.
        return sum((w * g).sum() for w, g in zip(self.weights, drawn(rank)))

for megabytes in (0.00001, 0.2, 25):
    module = Module()
    strategy = OrderedDDPStrategy(
        parallel_devices=[torch.device("cpu")], cluster_environment=LightningEnvironment(),
        bucket_cap_mb=megabytes, gradient_as_bucket_view=True,
    )
    strategy.connect(module)
    strategy.configure_ddp()
    for step in range(3):  # the buckets change after the first
        module.zero_grad()
        strategy.model().backward()
        for weight, gradient in zip(module.weights, expected):
            assert torch.equal(weight.grad, gradient), (megabytes, step)
dist.destroy_process_group()
"""


def drawn(rank: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(rank)
    return [torch.randn(shape, generator=draw) for shape in SHAPES]


def mean(ranks: int) -> list[Tensor]:
    """Return the sum in the order of ranks, divided by their number."""
    total, *others = (drawn(rank) for rank in range(ranks))
    for other in others:
        total = [one + two for one, two in zip(total, other, strict=True)]
    return [one / ranks for one in total]


@pytest.mark.parametrize("world", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_every_element_is_summed_in_the_order_of_ranks(together: Together, world: int) -> None:
    assert together(SETTING + CLASS + BUCKETS, world) == [(0, "")] * world


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_gradients_can_be_sent_in_bf16(together: Together, world: int) -> None:
    assert together(SETTING + CLASS + BF16, world) == [(0, "")] * world


def test_gradients_do_not_depend_on_the_buckets_of_ddp(together: Together) -> None:
    assert together(SETTING + DDP, 3) == [(0, "")] * 3
