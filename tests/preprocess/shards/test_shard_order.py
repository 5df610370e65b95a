"""The orders by shard: what is held in memory does not change what is read."""

from collections.abc import Callable

import numpy as np
import pytest

from preprocess.reading.mixing import PassPlan
from preprocess.shards import shard_order
from preprocess.shards.format import Shard
from preprocess.shards.shard_order import ShardOrder


def test_reading_does_not_depend_on_how_many_orders_are_held(
    numbered: Callable[..., list[Shard]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = numbered(*[[2, 0, 3]] * 9)

    def fresh() -> ShardOrder:
        return ShardOrder(shards, PassPlan(np.full(9, 8), ["corpus"] * 9, {}, 1), True)

    def starts(order: ShardOrder) -> list[list[int]]:
        return [order.text(1, index)[1].starts.tolist() for index in (*range(9), *range(9))]

    expected = starts(fresh())
    monkeypatch.setattr(shard_order, "OPEN_DOCUMENTS", 7)
    order = fresh()
    assert starts(order) == expected
    assert len(order._orders) == 2, "two shards of three documents"
    monkeypatch.setattr(shard_order, "OPEN_DOCUMENTS", 0)
    assert starts(order) == expected
    assert len(order._orders) == 1, "only the order in use"
