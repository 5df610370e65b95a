"""DistributedDataParallel whose gradients have the same bits after a restart.

DDP changes the layout of its buckets after the first step of each start. The order in which the ring
all-reduce of gloo sums an element over 3 or more ranks depends on the place of the element in its
bucket, so that a resumed training would differ in the last bits from an uninterrupted one.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel


class OrderedDDPStrategy(DDPStrategy):
    """`DDPStrategy` for CPUs, with `ordered_mean` as the communication hook.

    The parameter ``ddp_comm_hook`` of `DDPStrategy` has an effect on GPUs only.

    Args:
        sent: type in which gradients are sent; None means their own.
        options: arguments of `DDPStrategy`.
    """

    def __init__(self, sent: torch.dtype | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.sent = sent

    def configure_ddp(self) -> None:
        """Wrap the module in DistributedDataParallel, and register the hook."""
        super().configure_ddp()
        assert isinstance(self.model, DistributedDataParallel)
        self.model.register_comm_hook(self.sent, ordered_mean)


def ordered_mean(
    state: torch.dtype | None,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> Future[Tensor]:
    """Average the gradients of a bucket over ranks; sum each element in the order of ranks.

    Each rank sums one part of the bucket, so the traffic is that of a ring all-reduce: every rank sends
    and receives 2 (ranks - 1) / ranks of the bucket. All ranks get the same bits.

    Args:
        state: dtype in which gradients and averages are sent, None for that of the gradients. Sums
            always have that of the gradients.
        bucket: a bucket of gradients, whose buffer is one-dimensional.

    Returns:
        A completed future with the averages, in the bucket's buffer.
    """
    flat, ranks, rank = bucket.buffer(), dist.get_world_size(), dist.get_rank()
    bounds = [flat.numel() * number // ranks for number in range(ranks + 1)]
    sizes = [end - start for start, end in pairwise(bounds)]
    own = [sizes[rank]] * ranks
    sent = flat.to(state or flat.dtype)  # flat itself, if the dtypes are the same
    parts = sent.new_empty(ranks, sizes[rank])
    dist.all_to_all_single(parts.view(-1), sent, own, sizes)
    total, *others = parts.to(flat.dtype)
    for other in others:
        total += other
    total /= ranks
    dist.all_to_all_single(sent, total.to(sent.dtype).repeat(ranks), sizes, own)
    future: Future[Tensor] = Future()
    future.set_result(flat.copy_(sent))
    return future
