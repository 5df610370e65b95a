"""Sampled softmax: trained against sampled negatives, exact in evaluation (Jean et al. 2015).

The loss is that of bilm-tf, which is TensorFlow's sampled_softmax_loss with the log-uniform sampler:
negatives are distinct, the logarithm of each id's expected count is subtracted from its logit, and a
target that is also a negative counts once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.config import SampledSoftmaxConfig
from lightning_modules.nn.heads.linear_loss import linear_logsumexp
from lightning_modules.nn.heads.routes import Routes, id_ranks
from lightning_modules.nn.heads.softmax import FullSoftmax
from lightning_modules.nn.mode import is_training


class SampledSoftmax(FullSoftmax):
    """A full softmax whose loss in training mode is over the target and sampled ids only.

        loss = -log (exp z_t / sum_k exp z_k),  z_k = w_k h + b_k - log q_k,  k in {t} or S

    t is the target. S is a set of ``config.samples`` distinct ids, drawn once per call and shared by
    all positions. q_k is the probability that k is in S. A single draw has rank r with probability
    log(1 + 1 / (r + 1)) / log(vocabulary + 1). If ``config.samples`` is at least the vocabulary's
    size, the loss is that of the full softmax.

    Initialisation as in bilm-tf: W is N(0, 1/dim), b is 0.

    Args:
        config: number of samples.
        dim: width of the input.
        vocabulary: number of ids that can be predicted.
        ranks: frequency rank of each id, int64 (vocabulary,); None means that ids are ranks.
        shared: module that has W, as in `FullSoftmax`.

    Raises:
        UserError: ranks are not a permutation.
    """

    ranks: Tensor

    def __init__(
        self,
        config: SampledSoftmaxConfig,
        dim: int,
        vocabulary: int,
        ranks: Tensor | None = None,
        shared: nn.Module | None = None,
    ) -> None:
        super().__init__(config, dim, vocabulary, shared)
        self.samples = config.samples
        self.register_buffer("ranks", id_ranks(ranks, vocabulary))
        if shared is None:
            nn.init.normal_(self.weight, std=dim**-0.5)

    def nll(
        self,
        hidden: Tensor,
        targets: Tensor,
        routes: Routes | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """Return the sampled loss in training, else the exact cross-entropy.

        Args:
            hidden: (n, dim).
            targets: ids, int64 (n,); those below 0 are ignored and have loss 0.
            routes: ignored.
            training: whether to return the sampled loss; None means the module's mode.

        Returns:
            Loss in nats, (n,), float32. Sampling uses torch's generator of the weights' device.
        """
        if not is_training(self, training) or self.samples >= self.vocabulary:
            return super().nll(hidden, targets)
        drawn, probability = self._draw()
        labels = targets.clamp(min=0)  # (n,)
        ids = torch.cat([drawn, labels])  # (samples + n,)
        # A single lookup, so that the weights have a single dense gradient.
        weight = F.embedding(ids, self.vectors)  # (samples + n, dim)
        bias = F.embedding(ids, self.bias[:, None]).squeeze(1) - probability[ids].log()
        index = torch.full_like(self.ranks, -1)  # (vocabulary,), index of an id in drawn
        index[drawn] = torch.arange(len(drawn), device=drawn.device)
        negative = linear_logsumexp(
            hidden, weight[: self.samples], bias[: self.samples], index[labels]
        )  # (n,)
        positive = (hidden.float() * weight[self.samples :]).sum(1) + bias[self.samples :]  # (n,)
        return F.softplus(negative - positive).masked_fill(targets < 0, 0)

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Draw distinct ids (samples,); also return each id's probability to be drawn, (vocabulary,).

        TensorFlow draws ids until enough are distinct, and estimates the expected count of an id as
        1 - (1 - p)^draws. Here each id gets a random time with distribution Exp(p), and the ids with
        the smallest times are taken, which gives the same distribution without a loop (Efraimidis
        and Spirakis 2006). Given the next larger time t, an id is taken with probability
        1 - exp(-p t), the limit of TensorFlow's estimate for many draws (Kool et al. 2019, section 4.2).
        """
        rate = (1 / (self.ranks + 1)).log1p()  # (vocabulary,), p up to a constant factor
        arrivals = torch.empty_like(rate).exponential_() / rate
        times, ids = arrivals.topk(self.samples + 1, largest=False)
        return ids[:-1], -(-rate * times[-1]).expm1()
