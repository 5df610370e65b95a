"""A linear-chain conditional random field over the tags of a sentence (Lafferty et al. 2001).

Legend of shapes: batch is the number of sentences, time the length of the longest one, tags the number
of tags. A sentence's positions past its length are padding: they have no influence on any result.
"""

import torch
from torch import Tensor, nn

INITIAL_SCORE = 0.1
"""Transition scores start uniformly distributed within this distance of zero."""

NEVER = float("-inf")


class LinearChainCRF(nn.Module):
    """A probability distribution over all sequences of tags of a sentence.

    The score of a sequence y of a sentence with emissions e is

        start[y_1] + sum_t e[t, y_t] + sum_{t > 1} transitions[y_{t-1}, y_t] + end[y_n]

    and its probability the softmax of this score over all sequences. Training normalises over all
    sequences, including those that ``transitions_allowed`` excludes. `decode` excludes them.

    Args:
        tags: number of tags.
        transitions_allowed: bool (tags, tags); whether the tag of the column may follow that of the
            row. None allows all.
        start_allowed: bool (tags,); whether a sentence may begin with the tag. None allows all.
        end_allowed: bool (tags,); whether a sentence may end with the tag. None allows all.

    Attributes:
        transitions: parameter (tags, tags), scores of a tag (column) after another (row).
        start: parameter (tags,), scores of a tag at the first position.
        end: parameter (tags,), scores of a tag at the last position.
    """

    transitions: Tensor
    start: Tensor
    end: Tensor
    transitions_allowed: Tensor
    start_allowed: Tensor
    end_allowed: Tensor

    def __init__(
        self,
        tags: int,
        transitions_allowed: Tensor | None = None,
        start_allowed: Tensor | None = None,
        end_allowed: Tensor | None = None,
    ) -> None:
        super().__init__()
        shapes = {"transitions": (tags, tags), "start": (tags,), "end": (tags,)}
        given = {"transitions": transitions_allowed, "start": start_allowed, "end": end_allowed}
        for name, shape in shapes.items():
            scores = torch.empty(shape).uniform_(-INITIAL_SCORE, INITIAL_SCORE)
            self.register_parameter(name, nn.Parameter(scores))
            allowed = given[name]
            allowed = torch.ones(shape, dtype=torch.bool) if allowed is None else allowed
            assert allowed.shape == shape
            # Follows from the tags, so that it is not part of the saved weights.
            self.register_buffer(f"{name}_allowed", allowed, persistent=False)

    def log_likelihood(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Return the log-probability of each sentence's sequence of tags, in nats, (batch,).

        Args:
            emissions: floating point (batch, time, tags).
            tags: int64 (batch, time); any tag in the padding.
            lengths: int64 (batch,), at least 1.
        """
        return self.score(emissions, tags, lengths) - self.log_partition(emissions, lengths)

    def score(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Return the score of each sentence's sequence of tags, (batch,); arguments as above."""
        valid = _mask(emissions, lengths)
        emitted = emissions.gather(2, tags[:, :, None])[:, :, 0]
        moved = self.transitions[tags[:, :-1], tags[:, 1:]]
        last = tags.gather(1, lengths[:, None] - 1)[:, 0]
        # `where` instead of a product: padding may hold NaN or infinity.
        total = torch.where(valid, emitted, 0).sum(1) + torch.where(valid[:, 1:], moved, 0).sum(1)
        return total + self.start[tags[:, 0]] + self.end[last]

    def log_partition(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Return the logarithm of the sum of exp(score) over all sequences of tags, (batch,).

        Computed by the forward algorithm (Rabiner 1989, section III), in O(time x tags^2).

        Args:
            emissions: floating point (batch, time, tags).
            lengths: int64 (batch,), at least 1.
        """
        valid = _mask(emissions, lengths)
        emissions = torch.where(valid[:, :, None], emissions, 0)
        alpha = self.start + emissions[:, 0]  # log-sum over all beginnings that end in each tag
        for time in range(1, emissions.shape[1]):
            following = (
                torch.logsumexp(alpha[:, :, None] + self.transitions, 1) + emissions[:, time]
            )
            alpha = torch.where(valid[:, time, None], following, alpha)
        return torch.logsumexp(alpha + self.end, 1)

    @torch.no_grad()
    def decode(self, emissions: Tensor, lengths: Tensor) -> list[list[int]]:
        """Return the allowed sequence of tags with the highest score for each sentence.

        Computed by the Viterbi algorithm. Of sequences with equal scores, the result is the same for
        every batch. If no sequence is allowed, a sequence with as many tags is returned.

        Args:
            emissions: floating point (batch, time, tags).
            lengths: int64 (batch,), at least 1.

        Returns:
            A list of each sentence's length for each sentence.
        """
        valid = _mask(emissions, lengths)
        emissions = torch.where(valid[:, :, None], emissions, 0)
        transitions = self.transitions.masked_fill(~self.transitions_allowed, NEVER)
        best = self.start.masked_fill(~self.start_allowed, NEVER) + emissions[:, 0]
        # In the padding, every tag points to itself, so that the path stays at the last tag.
        same = torch.arange(best.shape[1], device=best.device).expand_as(best)
        pointers = []
        for time in range(1, emissions.shape[1]):
            scores, previous = (best[:, :, None] + transitions).max(1)
            inside = valid[:, time, None]
            best = torch.where(inside, scores + emissions[:, time], best)
            pointers.append(torch.where(inside, previous, same))
        tag = (best + self.end.masked_fill(~self.end_allowed, NEVER)).argmax(1)
        path = [tag]
        for previous in reversed(pointers):
            tag = previous.gather(1, tag[:, None])[:, 0]
            path.append(tag)
        found = torch.stack(path[::-1], 1).tolist()
        return [row[:length] for row, length in zip(found, lengths.tolist(), strict=True)]


def _mask(emissions: Tensor, lengths: Tensor) -> Tensor:
    """Return whether each position is inside its sentence, bool (batch, time)."""
    positions = torch.arange(emissions.shape[1], device=emissions.device)
    return positions < lengths[:, None].to(emissions.device)
