"""Sampled softmax: trained against drawn negatives, exact in evaluation (Jean et al. 2015).

As bilm-tf trains ELMo, that is as TensorFlow's sampled_softmax_loss with its log-uniform sampler:
distinct negatives, logits less the logarithm of how often an id is expected among them, a target
that was drawn counted once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.config import SampledSoftmaxConfig
from lightning_modules.nn.heads.linear_loss import linear_logsumexp
from lightning_modules.nn.heads.routes import Routes, id_ranks
from lightning_modules.nn.heads.softmax import FullSoftmax


class SampledSoftmax(FullSoftmax):
    """A full softmax whose loss in training mode is over the target and `samples` other ids.

        loss = -log softmax over {t} and S of (w_k h + b_k - log q_k), at k = t

    S are distinct ids, drawn anew at every call for all positions, t the target, q_k the probability
    that k is in S. A single draw has rank r with probability log(1 + 1 / (r + 1)) / log(vocabulary +
    1). Where there are as many samples as ids it is the full softmax.

    W is N(0, 1/dim), b is 0, as in bilm-tf. shared: W, left as it is; ranks: int64 (vocabulary,),
    id -> rank by count, none: ids are ranks. Raises UserError where ranks are no permutation.
    """

    ranks: Tensor

    def __init__(
        self,
        config: SampledSoftmaxConfig,
        dim: int,
        vocabulary: int,
        ranks: Tensor | None = None,
        shared: nn.Parameter | None = None,
    ) -> None:
        super().__init__(config, dim, vocabulary, shared)
        self.samples = config.samples
        self.register_buffer("ranks", id_ranks(ranks, vocabulary))
        if shared is None:
            nn.init.normal_(self.weight, std=dim**-0.5)

    def nll(self, hidden: Tensor, targets: Tensor, routes: Routes | None = None) -> Tensor:
        """The sampled loss in training mode, else the exact -log p; in nats, (n,), float32.

        hidden (n, dim); targets: ids (n,), int64, below 0 ignored (loss 0). Draws are torch's, on
        the device of the weights.
        """
        if not self.training or self.samples >= self.vocabulary:
            return super().nll(hidden, targets)
        drawn, expected = self._draw()
        goals = targets.clamp(min=0)  # (n,)
        ids = torch.cat([drawn, goals])  # (samples + n,)
        # One look-up for both, so that the weights have one dense gradient.
        weight = F.embedding(ids, self.vectors)  # (samples + n, dim)
        bias = F.embedding(ids, self.bias[:, None]).squeeze(1) - expected[ids].log()
        place = torch.full_like(self.ranks, -1)  # (vocabulary,), where an id is among the drawn
        place[drawn] = torch.arange(len(drawn), device=drawn.device)
        others = linear_logsumexp(
            hidden, weight[: self.samples], bias[: self.samples], place[goals]
        )  # (n,)
        own = (hidden.float() * weight[self.samples :]).sum(1) + bias[self.samples :]  # (n,)
        return F.softplus(others - own).masked_fill(targets < 0, 0)

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Distinct ids (samples,), and for every id its probability to be among them, (vocabulary,).

        TensorFlow draws until it has enough distinct ids and calls 1 - (1 - p)^draws their expected
        count. Here every id has a clock that rings after Exp(p), and those that ring first are
        taken: the same distribution without a loop (Efraimidis and Spirakis 2006). Given when the
        next clock rings, an id is among them with probability 1 - exp(-p time), TensorFlow's
        expression where draws are many (Kool et al. 2019, section 4.2).
        """
        rate = (1 / (self.ranks + 1)).log1p()  # (vocabulary,), p but for its sum
        clocks = torch.empty_like(rate).exponential_() / rate
        times, ids = clocks.topk(self.samples + 1, largest=False)
        return ids[:-1], -(-rate * times[-1]).expm1()
