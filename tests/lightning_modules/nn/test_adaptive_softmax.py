"""The adaptive softmax against torch's, its routes, and the choice of cutoffs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_modules.config import AdaptiveSoftmaxConfig
from lightning_modules.nn import adaptive_softmax
from lightning_modules.nn.adaptive_softmax import (
    BLOCK,
    NEARLY_CHEAPEST,
    AdaptiveSoftmax,
    Routes,
    choose_cutoffs,
    predicted_speedup,
    ranks_of,
    route,
)

DIM = 64


def head(
    vocabulary: int, cutoffs: tuple[int, ...], div: float = 4.0, ranks: Tensor | None = None
) -> AdaptiveSoftmax:
    torch.manual_seed(2)
    return AdaptiveSoftmax(AdaptiveSoftmaxConfig(div=div), DIM, vocabulary, cutoffs, ranks)


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, tuple[int, ...], float, list[int], int]:
    vocabulary = draw(st.integers(3, 40))
    cuts = draw(st.sets(st.integers(1, vocabulary - 1), min_size=1, max_size=3))
    targets = draw(st.lists(st.integers(-1, vocabulary - 1), min_size=1, max_size=30))
    return (
        vocabulary,
        tuple(sorted(cuts)),
        draw(st.sampled_from([1.0, 2.0, 4.0])),
        targets,
        draw(st.integers(0, 99)),
    )


@settings(deadline=None, max_examples=60)
@given(cases(), st.booleans())
def test_it_is_torchs_adaptive_softmax_for_any_cutoffs_ranks_and_targets(
    case: tuple[int, tuple[int, ...], float, list[int], int], routed: bool
) -> None:
    vocabulary, cutoffs, div, goals, seed = case
    ranks = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(seed))
    ours = head(vocabulary, cutoffs, div, ranks)
    theirs = nn.AdaptiveLogSoftmaxWithLoss(DIM, vocabulary, list(cutoffs), div_value=div)
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if k != "ranks"})
    targets = torch.tensor([-100 if goal < 0 else goal for goal in goals])
    kept = targets >= 0
    hidden = torch.randn(len(goals), DIM, generator=torch.Generator().manual_seed(seed))
    hidden.requires_grad_()

    routes = route(targets.numpy(), ranks.numpy(), cutoffs) if routed else None
    loss = ours.nll(hidden, targets, routes)

    assert loss.dtype == torch.float32
    assert not loss[~kept].any()
    torch.testing.assert_close(
        ours.log_prob(hidden), theirs.log_prob(hidden)[:, ranks], atol=1e-5, rtol=1e-5
    )
    gradients = torch.autograd.grad(loss.sum(), [hidden, *ours.parameters()])  # each one exists
    if not kept.any():
        assert not any(g.any() for g in gradients)
        return
    expected = -theirs(hidden[kept], ranks[targets[kept]]).output
    torch.testing.assert_close(loss[kept], expected, atol=1e-5, rtol=1e-5)
    wanted = torch.autograd.grad(
        expected.sum(), [hidden, *theirs.parameters()], allow_unused=True, materialize_grads=True
    )
    for a, b in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_log_probabilities_are_those_of_nll_and_sum_to_one() -> None:
    ours = head(30, (5, 12), ranks=torch.arange(30).flip(0))
    hidden = torch.randn(30, DIM)
    ids = torch.arange(30)

    table = ours.log_prob(hidden)

    torch.testing.assert_close(ours.nll(hidden, ids), -table[ids, ids])
    torch.testing.assert_close(table.exp().sum(1), torch.ones(30))


def test_without_cutoffs_it_is_a_full_softmax() -> None:
    ours = head(20, ())
    hidden, targets = torch.randn(6, DIM), torch.tensor([0, 3, -100, 19, 7, 7])
    logits = hidden @ ours.head.weight.T

    expected = nn.functional.cross_entropy(logits, targets, reduction="none")

    torch.testing.assert_close(ours.nll(hidden, targets), expected)
    routes = route(targets.numpy(), np.arange(20), ())
    assert routes == Routes((), ())
    torch.testing.assert_close(ours.nll(hidden, targets, routes), expected)
    torch.testing.assert_close(ours.log_prob(hidden), logits.log_softmax(1))


def test_routes_hold_each_target_once_in_blocks_and_an_empty_tail_one_block() -> None:
    ranks = np.arange(10)[::-1].copy()  # id 9 is rank 0
    targets = np.array([9, 0, -100, 4] + [1] * BLOCK)

    routes = route(targets, ranks, (2, 7, 9))

    assert [len(rows) for rows in routes.rows] == [BLOCK, BLOCK, BLOCK]  # ranks 2-6, 7-8, 9
    assert routes.rows[0][0] == 3
    assert routes.targets[0].tolist() == [3] + [-100] * (BLOCK - 1)  # id 4 is rank 5
    assert routes.rows[1].tolist() == list(range(4, 4 + BLOCK))
    assert routes.targets[1].tolist() == [1] * BLOCK
    assert routes.rows[2][0] == 1
    assert route(targets[:1], ranks, (2, 7, 9)).targets[2].tolist() == [-100] * BLOCK
    assert len(route(np.full(BLOCK + 1, 5), ranks, (2,)).rows[0]) == 2 * BLOCK


def test_ranks_travel_with_the_weights() -> None:
    ranks = torch.randperm(30)
    loaded = head(30, (5,))

    loaded.load_state_dict(head(30, (5,), ranks=ranks).state_dict())

    assert torch.equal(loaded.ranks, ranks)


@pytest.mark.parametrize("cutoffs", [(5, 5), (0, 3), (3, 30), (31,)])
def test_cutoffs_outside_the_vocabulary_are_refused(cutoffs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"model\.head\.cutoffs: .* 0 and .* 30 ids; .* auto"):
        head(30, cutoffs)


@pytest.mark.parametrize("ranks", [[0, 1, 1], [0, 1], [1, 2, 3]])
def test_ranks_that_are_no_permutation_are_refused(ranks: list[int]) -> None:
    with pytest.raises(ValueError, match=r"ranks must hold each of 0 to 2 once.*unigram counts"):
        head(3, (1,), ranks=torch.tensor(ranks))


def zipf(vocabulary: int) -> np.ndarray:
    counts = (1e7 / np.arange(1, vocabulary + 1)).astype(np.uint64)
    return np.random.default_rng(1).permutation(counts)


def test_ranks_follow_the_counts_and_equal_counts_keep_their_order() -> None:
    assert ranks_of(np.array([3, 9, 0, 9], np.uint64)).tolist() == [2, 0, 3, 1]


def test_small_vocabularies_have_no_tails() -> None:
    assert choose_cutoffs(zipf(999), 512, 4.0, 1280) == ()


@pytest.mark.parametrize(("vocabulary", "dim"), [(8000, 64), (16_000, 128), (800_000, 512)])
def test_chosen_cutoffs_fit_the_vocabulary_and_are_nearly_the_cheapest(
    vocabulary: int, dim: int
) -> None:
    counts = zipf(vocabulary)

    cutoffs = choose_cutoffs(counts, dim, 4.0, 1280)

    AdaptiveSoftmaxConfig(cutoffs=cutoffs)
    assert 0 < cutoffs[0] < cutoffs[-1] + 1 <= vocabulary
    best = predicted_speedup(counts, cutoffs, dim, 4.0, 1280)
    assert best > 2
    for other in ((), (vocabulary // 2,), (vocabulary // 10,), cutoffs[:1], cutoffs[1:]):
        assert predicted_speedup(counts, other, dim, 4.0, 1280) <= NEARLY_CHEAPEST * best
    longer = (cutoffs[0] * 3 // 2, *(max(c, cutoffs[0] * 2) for c in cutoffs[1:2]), *cutoffs[2:])
    assert predicted_speedup(counts, longer, dim, 4.0, 1280) < best


def test_few_rows_do_not_pay_for_a_tail() -> None:
    assert choose_cutoffs(zipf(1000), 8, 4.0, 16) == ()


def test_counts_of_nothing_are_no_division_by_zero() -> None:
    assert predicted_speedup(np.zeros(2000, np.uint64), (), 64, 4.0, 1280) == 1


def test_a_tail_has_one_dimension_at_least() -> None:
    ours = head(10, (2, 4, 6, 8))  # dim 64, div 4: 16, 4, 1, and 0.25

    assert [tail[0].out_features for tail in ours.tail] == [16, 4, 1, 1]


def test_of_nearly_equal_costs_the_longest_shortlist_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = choose_cutoffs(zipf(8000), 128, 4.0, 1280)
    monkeypatch.setattr(adaptive_softmax, "NEARLY_CHEAPEST", 1.0)

    assert chosen[0] > choose_cutoffs(zipf(8000), 128, 4.0, 1280)[0]
