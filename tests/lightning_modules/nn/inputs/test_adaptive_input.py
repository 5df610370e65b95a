"""The adaptive input against its definition, with its own vectors and with the output layer's."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_modules.config import AdaptiveInputConfig, AdaptiveSoftmaxConfig
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax
from lightning_modules.nn.inputs.adaptive_input import AdaptiveInput

VOCABULARY, WIDTH = 20, 8


def encoder(cutoffs: tuple[int, ...], div: float = 2.0, **options: Any) -> AdaptiveInput:
    ranks = options.pop("ranks", None)
    vocabulary = options.pop("vocabulary", VOCABULARY)
    config = AdaptiveInputConfig(**{"dropout": 0.0} | options)
    return AdaptiveInput(config, vocabulary, WIDTH, cutoffs, div, ranks)


def softmax(cutoffs: tuple[int, ...], div: float, ranks: Tensor | None) -> AdaptiveSoftmax:
    return AdaptiveSoftmax(AdaptiveSoftmaxConfig(div=div), WIDTH, VOCABULARY, cutoffs, ranks)


def table(shortlist: Tensor, tails: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the vector of each rank, (vocabulary, width)."""
    return torch.cat([shortlist, *(vectors @ projection for vectors, projection in tails)])


CUTOFFS = st.sets(st.integers(1, VOCABULARY - 1), max_size=3).map(lambda c: tuple(sorted(c)))


@settings(deadline=None, max_examples=60)
@given(
    CUTOFFS,
    st.sampled_from([1.0, 2.0, 4.0]),
    st.permutations(range(VOCABULARY)),
    st.lists(st.integers(0, VOCABULARY - 1), min_size=6, max_size=6),
    st.booleans(),
)
def test_vectors_and_gradients_match_the_definition_for_any_clusters(
    cutoffs: tuple[int, ...], div: float, order: list[int], numbers: list[int], tied: bool
) -> None:
    torch.manual_seed(3)
    ranks, ids = torch.tensor(order), torch.tensor(numbers).view(1, 2, 3)
    net = encoder(cutoffs, div, ranks=ranks)
    owner: nn.Module = net
    tails = list(zip(net.vectors, net.projections, strict=True))
    shortlist = net.shortlist
    if tied:
        owner = output = softmax(cutoffs, div, ranks)
        net.tie(output)
        shortlist = output.head.weight[: (*cutoffs, VOCABULARY)[0]]
        tails = [(outer.weight, inner.weight) for inner, outer in output.tail]
    weights = torch.randn(1, 2, 3, WIDTH)

    vectors = net(ids)
    gradients = torch.autograd.grad((vectors * weights).sum(), list(owner.parameters()))

    expected = table(shortlist, tails)[ranks[ids]]
    expected_gradients = torch.autograd.grad((expected * weights).sum(), list(owner.parameters()))
    torch.testing.assert_close(vectors, expected, atol=1e-6, rtol=1e-6)
    for a, b in zip(
        gradients, expected_gradients, strict=True
    ):  # none is None, even if no id is in a cluster
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_each_cluster_is_narrower_by_div() -> None:
    net = encoder((5, 9, 12))

    assert net.shortlist.shape == (5, WIDTH)
    assert [tuple(v.shape) for v in net.vectors] == [(4, 4), (3, 2), (8, 1)]
    assert [tuple(p.shape) for p in net.projections] == [(4, WIDTH), (2, WIDTH), (1, WIDTH)]


def test_a_tied_input_has_no_parameters_and_uses_the_output_layers() -> None:
    network = nn.Module()
    network.input, network.head = encoder((5, 9)), softmax((5, 9), 2.0, None)
    network.input.tie(network.head)
    ids = torch.arange(VOCABULARY).view(1, 1, -1)

    assert not list(network.input.parameters())
    assert not [name for name in network.state_dict() if name.startswith("input.")]
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.head.parameters():
            parameter.zero_()
    assert not other.input(ids).any()
    assert network.input(ids).all()


def test_ids_that_cannot_be_predicted_are_in_the_last_cluster() -> None:
    net = encoder((2,), ranks=torch.tensor([2, 0, 1]), vocabulary=6)

    assert net.ranks.tolist() == [2, 0, 1, 3, 4, 5]
    expected = table(net.shortlist, [(net.vectors[0], net.projections[0])])[net.ranks]
    torch.testing.assert_close(net(torch.arange(6).view(1, 1, 6))[0, 0], expected)


def test_ranks_are_part_of_the_state_dict() -> None:
    ranks = torch.randperm(VOCABULARY)
    loaded = encoder((5,))

    loaded.load_state_dict(encoder((5,), ranks=ranks).state_dict())

    assert torch.equal(loaded.ranks, ranks)


@pytest.mark.parametrize("cluster", [slice(0, 200), slice(200, 1200), slice(1200, 3000)])
def test_initial_vectors_have_the_same_variance_in_all_clusters(cluster: slice) -> None:
    torch.manual_seed(1)
    net = AdaptiveInput(AdaptiveInputConfig(), 3000, 256, (200, 1200), 4.0, None).eval()

    vectors = net(torch.arange(3000).view(1, 1, -1)[..., cluster])

    assert vectors.std().item() == pytest.approx(3**-0.5, rel=0.06)


def test_dropout_is_applied_in_training_only() -> None:
    torch.manual_seed(1)
    net = encoder((5,), dropout=0.5)
    ids = torch.arange(VOCABULARY).view(1, 1, -1)

    assert 0.2 < (net(ids) == 0).float().mean() < 0.8
    assert not (net.eval()(ids) == 0).any()
