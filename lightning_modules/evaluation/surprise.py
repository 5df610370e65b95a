"""How surprising each token of a text is: -log p of each direction."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from lightning_modules.evaluation.scoring import target_losses
from lightning_modules.vectors.batches import plan_batches
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.streams import VectorError, targets_of
from preprocess.tokenizers.aligned_text import Tokenised

Doubles = npt.NDArray[np.float64]


class Surprise(NamedTuple):
    """-log p of each token of a text in nats, from the zero state and over the full vocabulary.

    Attributes:
        forward: given the tokens before it, float64 (tokens,).
        backward: given the tokens after it, float64 (tokens,); None if the model reads forward only.
        ends: -log p of the boundary that ends the text, of each direction. With it, the sums are the
            losses that `score_texts` gives with the opposite sign.
    """

    forward: Doubles
    backward: Doubles | None
    ends: tuple[float, ...]


def surprises(
    model: BiLM, texts: Sequence[Tokenised], batch_tokens: int = 4096
) -> Iterator[tuple[int, Surprise]]:
    """Yield the index and the surprise of each text, shorter texts first.

    Args:
        model: the model.
        texts: what ``model.reader.read`` returns.
        batch_tokens: tokens per batch, including padding.

    Raises:
        UserError: if the model has no output layer.
        VectorError: if a log-probability is NaN or infinite.
    """
    predictable = model.network.output_vocabulary
    for batch in plan_batches([len(text.tokens) + 1 for text in texts], batch_tokens):
        read = [texts[number].tokens for number in batch]
        targets = [targets_of([t.id for t in one], model.starts, predictable) for one in read]
        with model.encoder.inference():
            parts = [part.cpu() for part in target_losses(model, read, targets)]
            losses = torch.cat(parts, 1).double().numpy()  # (directions, time, texts)
        if not np.isfinite(losses).all():
            raise VectorError("the log-probability of a text")
        for row, number in enumerate(batch):
            tokens = len(read[row])
            of_text = losses[:, : tokens + 1, row]
            backward = of_text[1, :tokens][::-1] if len(of_text) == 2 else None
            yield (
                number,
                Surprise(of_text[0, :tokens], backward, tuple(of_text[:, tokens].tolist())),
            )
