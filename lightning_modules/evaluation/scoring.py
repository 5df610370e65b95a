"""Log-probabilities of single texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.evaluation.held_out import perplexity
from lightning_modules.nn.window import Window
from lightning_modules.vectors.batches import plan_batches
from lightning_modules.vectors.encoder import VectorError
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Text
from preprocess.tokenizers.base import IGNORE, UNKNOWN, Token

CHUNK = 64
"""Positions of each text that are scored at once."""


@dataclass(frozen=True)
class Score:
    """The score of a text.

    Attributes:
        tokens: number of targets of each direction: the tokens and the closing boundary.
        unknown: number of forward targets that count as the unknown token.
        forward: log-probability in nats of the forward language model.
        backward: log-probability in nats of the backward language model, None if there is none.
    """

    tokens: int
    unknown: int
    forward: float
    backward: float | None

    @property
    def log_probability(self) -> float:
        """Mean of both directions, in nats."""
        return self.forward if self.backward is None else (self.forward + self.backward) / 2

    def perplexity(self, log_probability: float) -> float:
        """Return exp(-log p / tokens), bounded as in `held_out.perplexity`.

        Args:
            log_probability: `forward`, `backward` or `log_probability` of this score, in nats.
        """
        return perplexity(-log_probability / self.tokens)


def score_texts(model: BiLM, texts: Sequence[Text], batch_tokens: int = 4096) -> list[Score]:
    """Return the score of each text, in order, over the full vocabulary.

    Each text is read from the zero state. Its first token is predicted from the boundary token that
    training put before a document; the boundary after its last token is predicted too.

    Args:
        model: the model.
        texts: strings, or lists of words. They are cleaned as the training corpus was.
        batch_tokens: tokens per batch, including padding.

    Raises:
        UserError: if the model has no output layer.
        TypeError: if a text is neither a string nor a list of words.
        VectorError: if a log-probability is NaN or infinite.
    """
    read = [text.tokens for text in model.reader.read(texts)]
    with model.encoder.inference():
        scores = dict(_scores(model, read, batch_tokens))
    return [scores[number] for number in range(len(read))]


def _scores(
    model: BiLM, read: Sequence[Sequence[Token]], batch_tokens: int
) -> Iterator[tuple[int, Score]]:
    """Yield the index of each text, and its score."""
    predictable = model.network.output_vocabulary
    for batch in plan_batches([len(tokens) + 1 for tokens in read], batch_tokens):
        targets = [_targets(model, [t.id for t in read[n]], predictable) for n in batch]
        sums = _sums(model, [read[n] for n in batch], targets)
        if not sums.isfinite().all():
            raise VectorError("the log-probability of a text")
        for row, number in enumerate(batch):
            scored = (-sums[:, row]).tolist()
            backward = scored[1] if len(scored) == 2 else None
            unknown = int((targets[row][0] == UNKNOWN).sum())
            yield number, Score(len(read[number]) + 1, unknown, scored[0], backward)


def _targets(model: BiLM, ids: list[int], predictable: int) -> npt.NDArray[np.int64]:
    """Return the targets of each direction, (2, tokens + 1)."""
    before, after = model.starts
    targets = np.array([[*ids, after], [*ids[::-1], before]], np.int64)
    targets[targets >= predictable] = UNKNOWN
    return targets


def _sums(
    model: BiLM, texts: Sequence[Sequence[Token]], targets: Sequence[npt.NDArray[np.int64]]
) -> Tensor:
    """Return -log p of each text, float64 (directions, texts) on the CPU."""
    network = model.network
    state = network.zero_state(len(texts))
    longest = max(of_text.shape[1] for of_text in targets)
    padded = np.full((network.directions, longest, len(texts)), IGNORE, np.int64)
    for row, of_text in enumerate(targets):
        padded[:, : of_text.shape[1], row] = of_text[: network.directions]
    sums = torch.zeros(network.directions, len(texts), dtype=torch.float64, device="cpu")
    streams = model.encoder.streams(texts)
    for start in range(0, longest, CHUNK):
        part = slice(start, start + CHUNK)
        x = model.encoder.vectors(streams, part, len(texts), state.device)
        run = network.recurrent(x, state, training=False)
        state = run.state
        ids = torch.from_numpy(padded[:, part]).to(state.device)
        nll = network.target_nll(run.outputs[-1], Window(ids, ids), training=False)
        sums += nll.sum(1, dtype=torch.float64).cpu()
    return sums
