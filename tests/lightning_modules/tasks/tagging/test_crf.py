"""The CRF against the enumeration of all sequences, and against its own definition."""

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from lightning_modules.tasks.tagging.crf import LinearChainCRF

TAGS = 4
LENGTHS = torch.tensor([5, 1, 3, 2])


@pytest.fixture
def crf() -> LinearChainCRF:
    torch.manual_seed(0)
    made = LinearChainCRF(TAGS).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


@pytest.fixture
def emissions() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(len(LENGTHS), 5, TAGS, dtype=torch.float64)


def brute_score(crf: LinearChainCRF, emissions: Tensor, tags: tuple[int, ...]) -> Tensor:
    """The definition, for one sentence without padding."""
    total = crf.start[tags[0]] + crf.end[tags[-1]]
    total = total + sum(emissions[t, tag] for t, tag in enumerate(tags))
    return total + sum(crf.transitions[a, b] for a, b in pairwise(tags))


def every_score(crf: LinearChainCRF, emissions: Tensor) -> tuple[list[tuple[int, ...]], Tensor]:
    paths = list(product(range(TAGS), repeat=len(emissions)))
    return paths, torch.stack([brute_score(crf, emissions, path) for path in paths])


def test_log_likelihood_against_enumeration(crf: LinearChainCRF, emissions: Tensor) -> None:
    tags = torch.randint(TAGS, (len(LENGTHS), 5))
    expected = []
    for row, length in enumerate(LENGTHS.tolist()):
        _, scores = every_score(crf, emissions[row, :length])
        own = brute_score(crf, emissions[row], tuple(tags[row, :length].tolist()))
        expected.append(own - scores.logsumexp(0))
    found = crf.log_likelihood(emissions, tags, LENGTHS)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_gradients_against_enumeration(crf: LinearChainCRF, emissions: Tensor) -> None:
    emissions.requires_grad_()
    leaves = [emissions, *crf.parameters()]
    found = torch.autograd.grad(crf.log_partition(emissions, LENGTHS).sum(), leaves)
    total = sum(
        every_score(crf, emissions[row, :length])[1].logsumexp(0)
        for row, length in enumerate(LENGTHS.tolist())
    )
    expected = torch.autograd.grad(total, leaves)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_numerical_gradients(crf: LinearChainCRF, emissions: Tensor) -> None:
    tags = torch.randint(TAGS, (len(LENGTHS), 5))
    emissions.requires_grad_()
    assert torch.autograd.gradcheck(lambda e: crf.log_likelihood(e, tags, LENGTHS), (emissions,))


def test_decode_against_enumeration(crf: LinearChainCRF, emissions: Tensor) -> None:
    found = crf.decode(emissions, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        paths, scores = every_score(crf, emissions[row, :length])
        assert tuple(found[row]) == paths[int(scores.argmax())]


def test_decode_with_constraints_against_enumeration(emissions: Tensor) -> None:
    torch.manual_seed(2)
    moves = torch.rand(TAGS, TAGS) < 0.5
    moves.fill_diagonal_(True)
    starts, ends = torch.tensor([True, True, False, True]), torch.tensor([False, True, True, True])
    crf = LinearChainCRF(TAGS, moves, starts, ends).double()
    for row, length in enumerate(LENGTHS.tolist()):
        paths, scores = every_score(crf, emissions[row, :length])
        allowed = [
            bool(starts[path[0]] and ends[path[-1]]) and all(moves[a, b] for a, b in pairwise(path))
            for path in paths
        ]
        scores[~torch.tensor(allowed)] = float("-inf")
        [decoded] = crf.decode(emissions[row : row + 1], LENGTHS[row : row + 1])
        assert tuple(decoded) == paths[int(scores.argmax())]
    assert len({tuple(path) for path in crf.decode(emissions, LENGTHS)}) > 1


def test_without_an_allowed_sequence_a_sequence_of_known_tags(emissions: Tensor) -> None:
    never = torch.zeros(TAGS, dtype=torch.bool)
    crf = LinearChainCRF(TAGS, start_allowed=never).double()
    found = crf.decode(emissions, LENGTHS)
    assert [len(path) for path in found] == LENGTHS.tolist()
    assert all(0 <= tag < TAGS for path in found for tag in path)


def test_padding_has_no_influence(crf: LinearChainCRF, emissions: Tensor) -> None:
    tags = torch.randint(TAGS, (len(LENGTHS), 5))
    alone = [
        crf.log_likelihood(emissions[n : n + 1, :length], tags[n : n + 1, :length], LENGTHS[[n]])
        for n, length in enumerate(LENGTHS.tolist())
    ]
    paths = crf.decode(emissions, LENGTHS)
    wide = torch.full((len(LENGTHS), 9, TAGS), float("nan"), dtype=torch.float64)
    filler = torch.zeros(len(LENGTHS), 9, dtype=torch.long)
    for row, length in enumerate(LENGTHS.tolist()):
        wide[row, :length] = emissions[row, :length]
        filler[row, :length] = tags[row, :length]
    wide.requires_grad_()
    likelihood = crf.log_likelihood(wide, filler, LENGTHS)
    torch.testing.assert_close(likelihood, torch.cat(alone), rtol=1e-13, atol=1e-13)
    likelihood.sum().backward()
    assert wide.grad is not None
    assert wide.grad.isfinite().all()
    assert crf.decode(wide, LENGTHS) == paths


def test_probabilities_sum_to_one(crf: LinearChainCRF, emissions: Tensor) -> None:
    paths = torch.tensor(list(product(range(TAGS), repeat=3)))
    same = emissions[:1, :3].expand(len(paths), -1, -1)
    total = crf.log_likelihood(same, paths, torch.full((len(paths),), 3)).exp().sum()
    torch.testing.assert_close(total, torch.ones((), dtype=torch.float64))


def test_the_constraints_are_not_saved() -> None:
    assert {*LinearChainCRF(TAGS).state_dict()} == {"transitions", "start", "end"}
