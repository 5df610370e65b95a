"""Perplexity of held-out text: full vocabulary, every token once, state carried along the stream."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lightning_modules.nn.bilm import BiLMNetwork
from preprocess.token_stream import Ids


@dataclass(frozen=True)
class Evaluation:
    """Sums over a split. ``forward`` and ``backward`` are total -log p in nats.

    A document's end counts as a token, as a word and as a byte (the newline it stands for), since
    the model predicts it; so Penn Treebank has its customary 73,760 words.
    """

    forward: float
    backward: float
    tokens: int
    words: int
    text_bytes: int

    def perplexity(self, nats: float, units: int) -> float:
        return math.exp(min(nats / units, 700.0))

    def figures(self) -> dict[str, Any]:
        """Perplexities and bits per byte; the average is exp of the mean of both losses."""
        mean = (self.forward + self.backward) / 2
        return {
            "forward_perplexity": self.perplexity(self.forward, self.tokens),
            "backward_perplexity": self.perplexity(self.backward, self.tokens),
            "average_perplexity": self.perplexity(mean, self.tokens),
            "forward_word_perplexity": self.perplexity(self.forward, self.words),
            "backward_word_perplexity": self.perplexity(self.backward, self.words),
            "average_word_perplexity": self.perplexity(mean, self.words),
            "bits_per_byte": mean / math.log(2) / self.text_bytes,
            **asdict(self),
        }


def evaluate(
    network: BiLMNetwork, windows: Iterable[tuple[Ids, Ids]], totals: dict[str, int]
) -> Evaluation:
    """Run ``network`` over ``windows`` of (2, time, rows) ids and targets.

    Args:
        network: in any mode; it is left in the mode it was in.
        windows: every position of the split once, padding with a target below 0.
        totals: the split's documents, tokens, words and text_bytes.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    state = None
    with torch.inference_mode():
        for ids, targets in windows:
            state = state or network.zero_state(ids.shape[2])
            on_device = torch.from_numpy(ids).to(device), torch.from_numpy(targets).to(device)
            nll, state = network.nll(*on_device, state)  # (2, time, rows)
            sums += nll.double().sum((1, 2))
    network.train(was_training)
    ends = totals["documents"]
    forward, backward = sums.tolist()
    return Evaluation(
        forward,
        backward,
        totals["tokens"] + ends,
        totals["words"] + ends,
        totals["text_bytes"] + ends,
    )
