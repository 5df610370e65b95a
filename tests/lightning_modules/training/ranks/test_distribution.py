"""The division of rows over ranks. Tests of the train stage test the collective operations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.training.ranks.distribution import (
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
