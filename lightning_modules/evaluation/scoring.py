"""Log-probabilities of single texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.evaluation.held_out import perplexity
from lightning_modules.nn.window import Window
from lightning_modules.vectors.batches import plan_batches
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Text
from lightning_modules.vectors.streams import Int64Ids, VectorError, padded_targets, targets_of
from preprocess.tokenizers.base import UNKNOWN, Token

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
        targets = [targets_of([t.id for t in read[n]], model.starts, predictable) for n in batch]
        sums = _sums(model, [read[n] for n in batch], targets)
        if not sums.isfinite().all():
            raise VectorError("the log-probability of a text")
        for row, number in enumerate(batch):
            scored = (-sums[:, row]).tolist()
            backward = scored[1] if len(scored) == 2 else None
            unknown = int((targets[row][0] == UNKNOWN).sum())
            yield number, Score(len(read[number]) + 1, unknown, scored[0], backward)


def _sums(model: BiLM, texts: Sequence[Sequence[Token]], targets: Sequence[Int64Ids]) -> Tensor:
    """Return -log p of each text, float64 (directions, texts) on the CPU."""
    sums = torch.zeros(model.network.directions, len(texts), dtype=torch.float64, device="cpu")
    for nll in target_losses(model, texts, targets):
        sums += nll.sum(1, dtype=torch.float64).cpu()
    return sums


def target_losses(
    model: BiLM, texts: Sequence[Sequence[Token]], targets: Sequence[Int64Ids]
) -> Iterator[Tensor]:
    """Yield -log p of the targets of consecutive positions, (directions, positions, texts), 0 in padding.

    It must be called in `Encoder.inference`.

    Args:
        model: the model.
        texts: tokens of each text of a batch.
        targets: targets of each text, as `targets_of` returns them.
    """
    network = model.network
    state = network.zero_state(len(texts))
    padded = padded_targets(targets, network.directions)
    streams = model.encoder.streams(texts)
    for start in range(0, padded.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        x = model.encoder.vectors(streams, part, len(texts), state.device)
        run = network.recurrent(x, state, training=False)
        state = run.state
        ids = torch.from_numpy(padded[:, part]).to(state.device)
        yield network.target_nll(run.top, Window(ids, ids), training=False)
