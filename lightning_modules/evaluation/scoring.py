"""Log-probabilities of texts, each by itself, from zero state, its boundaries included."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.evaluation.held_out import perplexity
from lightning_modules.nn.window import Window
from lightning_modules.vectors.pretrained import BiLM, Text, plan_batches
from preprocess.tokenizers.base import IGNORE, UNKNOWN, Token

CHUNK = 64


@dataclass(frozen=True)
class Score:
    """What a model thinks of a text.

    tokens: predicted in each direction, the closing boundary included; unknown: of these, tokens that
    count as the unknown one; forward, backward: log-probability in nats, backward none where the
    model reads forward only.
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
        """Return exp(-log p / tokens), limited as in `held_out.perplexity`."""
        return perplexity(-log_probability / self.tokens)


@torch.inference_mode()
def score_texts(model: BiLM, texts: Sequence[Text], batch_tokens: int = 4096) -> list[Score]:
    """The score of each text, in order, over the full vocabulary.

    A text's first token is predicted from the boundary token that training put before a document,
    and after its last one the boundary that follows. In memory are the texts and one chunk of a batch.

    Raises:
        UserError: the model has no output layer.
        TypeError: a text is neither a string nor a list of words.
    """
    read = [text.tokens for text in model.reader.read(texts)]
    predictable = model.network.output_vocabulary
    scores: dict[int, Score] = {}
    for batch in plan_batches([len(tokens) + 1 for tokens in read], batch_tokens):
        targets = [_targets(model, [t.id for t in read[n]], predictable) for n in batch]
        sums = _sums(model, [read[n] for n in batch], targets)
        for place, number in enumerate(batch):
            own = targets[place][0]
            found = (-sums[:, place]).tolist()
            backward = found[1] if len(found) == 2 else None
            unknown = int((own == UNKNOWN).sum())
            scores[number] = Score(len(own), unknown, found[0], backward)
    return [scores[number] for number in range(len(read))]


def _targets(model: BiLM, ids: list[int], predictable: int) -> npt.NDArray[np.int64]:
    """(2, tokens + 1) what each direction predicts."""
    before, after = model.starts
    found = np.array([[*ids, after], [*ids[::-1], before]], np.int64)
    found[found >= predictable] = UNKNOWN
    return found


def _sums(
    model: BiLM, texts: Sequence[Sequence[Token]], targets: Sequence[npt.NDArray[np.int64]]
) -> Tensor:
    """-log p of each text, (directions, texts), float64."""
    network = model.network
    state = network.zero_state(len(texts))
    longest = max(one.shape[1] for one in targets)
    padded = np.full((network.directions, longest, len(texts)), IGNORE, np.int64)
    for row, one in enumerate(targets):
        padded[:, : one.shape[1], row] = one[: network.directions]
    sums = torch.zeros(network.directions, len(texts), dtype=torch.float64)
    streams = model.encoder.streams(texts)
    for start in range(0, longest, CHUNK):
        part = slice(start, start + CHUNK)
        x = model.encoder.vectors(streams, part, len(texts), state.device)
        run = network.recurrent(x, state)
        state = run.state
        wanted = torch.from_numpy(padded[:, part]).to(state.device)
        nll = network.nll_of(run.outputs[-1], Window(wanted, wanted))
        sums += nll.sum(1, dtype=torch.float64).cpu()
    return sums
