"""The division of rows over ranks. Tests of the train stage test the collective operations."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.training.ranks.distribution import (
    AGREE_STEPS,
    Agreement,
    LostProcess,
    Share,
    gather_rows,
    lost_process_reported,
    mean_over_ranks,
)
from preprocess.errors import UserError


@given(world=st.integers(1, 5), passes=st.integers(1, 4), size=st.integers(1, 6))
def test_every_row_belongs_to_one_pass_of_one_rank_in_order(
    world: int, passes: int, size: int
) -> None:
    rows = world * passes * size
    shares = [Share(rows, rank, world, passes) for rank in range(world)]
    taken = [row for share in shares for part in share.ranges for row in part]

    assert taken == list(range(rows))
    assert [row for share in shares for row in share.of_rank] == taken
    assert {len(part) for share in shares for part in share.ranges} == {size}


@pytest.mark.parametrize(
    ("rows", "world", "passes", "near"),
    [(33, 2, 1, "32 or 34"), (10, 2, 3, "6 or 12"), (3, 4, 1, "4")],
)
def test_rows_that_cannot_be_divided_evenly_are_refused_with_a_suggestion(
    rows: int, world: int, passes: int, near: str
) -> None:
    with pytest.raises(UserError) as told:
        Share(rows, 0, world, passes)

    assert str(told.value).startswith(
        f"train.rows = {rows} cannot be divided evenly over {world} device(s) with {passes} pass(es) "
        f"each; set train.rows to {near}, or change"
    )


def test_one_process_agrees_with_itself() -> None:
    state = torch.rand(2, 2, 3, 4)

    assert Agreement().largest(7, 3, -1) == [3, -1]
    assert Agreement().is_due(1)
    assert torch.equal(gather_rows(state), state)
    assert torch.equal(mean_over_ranks(state), state)


def agreed_steps(monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> list[int]:
    """Return the steps at which a rank agrees with one whose steps take so long."""
    now, other = 0.0, 0.0

    def all_reduce(numbers: torch.Tensor, *_: Any) -> None:
        nonlocal other
        numbers[0] = max(int(numbers[0]), int(other * 1e6))
        numbers[1] = max(int(numbers[1]), 15)
        other = 0.0

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
    monkeypatch.setattr(dist, "new_group", lambda backend: backend)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr("lightning_modules.training.ranks.distribution.time.monotonic", lambda: now)
    agreement, agreed = Agreement(), []
    for step, one in enumerate(seconds, 1):
        now, other = now + 1e-4, other + one
        if agreement.is_due(step):
            agreed.append(step)
            assert agreement.largest(step, 0) == [15], "the other rank's number"
    return agreed


def test_ranks_agree_at_intervals_that_follow_the_slowest_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert agreed_steps(monkeypatch, [1.0] * 5) == [1, 2, 3, 4, 5]
    # The first step compiles. Then 20 steps of 10 ms are AGREE_SECONDS.
    assert agreed_steps(monkeypatch, [3.0] + [0.01] * 80) == [1, 2, 4, 8, 16, 32, 52, 72]
    fast = agreed_steps(monkeypatch, [1e-4] * 500)
    assert fast[-1] - fast[-2] == AGREE_STEPS


def test_a_lost_process_is_reported_in_one_sentence() -> None:
    error = RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    with (
        pytest.raises(LostProcess, match=r"another process of this training ended \(\[\.\./gloo"),
        lost_process_reported(2),
    ):
        raise error
    with pytest.raises(RuntimeError, match="Connection closed"), lost_process_reported(1):
        raise error
    for other in (
        "mat1 and mat2 shapes cannot be multiplied",
        "in /usr/lib/python3/dist-packages/x",
    ):
        with pytest.raises(RuntimeError, match=other[:9]), lost_process_reported(2):
            raise RuntimeError(other)
