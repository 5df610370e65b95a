"""Text sampled from a language model, token by token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.streams import VectorError
from preprocess.errors import UserError
from preprocess.tokenizers.base import CONTROLS, Token

CHUNK = 64
"""Positions of the prompt that are read at once."""

Direction = Literal["forward", "backward"]


class GenerationError(UserError):
    """A choice that cannot be sampled with, or a direction that the model does not have."""


@dataclass(frozen=True)
class Sampling:
    """How the tokens of a text are drawn.

    Probabilities are raised to the power 1 / temperature and normalised, then restricted to the
    ``top_k`` most probable tokens, then to the smallest set of most probable tokens whose probability
    is at least ``top_p`` (Holtzman et al. 2020, nucleus sampling).

    Attributes:
        tokens: largest number of tokens to draw; a text ends before if its end is drawn.
        temperature: below 1 likely tokens become more likely; 0 takes the most probable token.
        top_k: number of tokens to draw from; None means all.
        top_p: probability of the tokens to draw from, above 0 and at most 1.
        seed: the same seed, model and prompt give the same texts on the same device.
        direction: "forward" continues the prompt. "backward" reads from right to left: it writes what
            stands before the prompt.
    """

    tokens: int = 100
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 1
    direction: Direction = "forward"

    def check(self, model: BiLM) -> None:
        """Raise GenerationError if a setting is out of range, or if the model lacks the direction."""
        if self.tokens < 1:
            raise GenerationError(f"tokens: {self.tokens} is too small; draw 1 token or more")
        if not 0 <= self.temperature < float("inf"):
            raise GenerationError(
                f"temperature: {self.temperature:g} is not a number from 0 on; 1 samples from the "
                "model's own probabilities, 0 takes the most probable token"
            )
        if self.top_k is not None and self.top_k < 1:
            raise GenerationError(f"top_k: {self.top_k} is too small; keep 1 token or more")
        if not 0 < self.top_p <= 1:
            raise GenerationError(
                f"top_p: {self.top_p:g} is not a probability above 0 and at most 1; 1 keeps all tokens"
            )
        if not 0 <= self.seed < 1 << 48:
            raise GenerationError(f"seed: {self.seed} is not a number from 0 to 2^48 - 1")
        if self.direction not in get_args(Direction):
            raise GenerationError(
                f"direction: {self.direction!r} is unknown; use forward or backward"
            )
        if self.direction == "backward" and model.network.directions == 1:
            raise GenerationError(
                "direction: this model reads forward only; use forward, or a model trained with "
                "model.directions=both"
            )


@dataclass(frozen=True)
class Generated:
    """A generated text.

    Attributes:
        text: the prompt, after cleaning, with the drawn text after it or, backward, before it.
        tokens: spellings of the drawn tokens in the order of the text.
        log_probability: sum of the tokens' log-probabilities in nats under the model (temperature 1,
            all tokens), including that of the end if it was drawn.
        ended: whether the end of the text was drawn; otherwise the number of tokens was reached.
    """

    text: str
    tokens: tuple[str, ...]
    log_probability: float
    ended: bool


def generate(
    model: BiLM, prompt: str = "", sampling: Sampling | None = None, number: int = 1
) -> Iterator[Generated]:
    """Yield sampled texts.

    The language model reads the boundary token that training put before a document, then the prompt,
    from the zero state. The unknown token is never drawn. Each text has random numbers of its own, so
    that text i does not depend on ``number``.

    Args:
        model: a model with an output layer.
        prompt: text to continue; cleaned as the training corpus was, so spaces at its end are lost.
        sampling: how tokens are drawn; None means the default settings.
        number: number of texts.

    Raises:
        GenerationError: if a setting is out of range, or if the model lacks the direction.
        UserError: if the model has no output layer.
        VectorError: if the model computes NaN or infinity.
    """
    sampling = sampling or Sampling()
    sampling.check(model)
    if number < 1:
        raise GenerationError(f"number: {number} is too small; generate 1 text or more")
    return (_generate(model, prompt, sampling, index) for index in range(number))


def _generate(model: BiLM, prompt: str, sampling: Sampling, index: int) -> Generated:
    [read] = model.reader.read([prompt])
    backward = sampling.direction == "backward"
    end = model.starts[0] if backward else model.starts[1]
    drawn: list[Token] = []
    total, ended = 0.0, False
    random = torch.Generator().manual_seed((sampling.seed << 15) + index)
    with model.encoder.inference():
        reader = _Reader(model, int(backward))
        log_p = reader.read_prompt(read.tokens)
        while len(drawn) < sampling.tokens:
            chosen = draw(_allowed(log_p, end), sampling, random)
            total += log_p[chosen].item()
            if ended := chosen == end:
                break
            drawn.append(Token(chosen, model.tokenizer.spelling(chosen), 0, 0))
            if len(drawn) < sampling.tokens:
                log_p = reader.read(drawn[-1])
    if backward:
        drawn.reverse()
    text = _joined(model, read.text, [token.id for token in read.tokens], drawn, backward)
    return Generated(text, tuple(token.spelling for token in drawn), total, ended)


class _Reader:
    """One direction of a language model that reads a text token by token.

    Must be used inside `Encoder.inference`. The other direction is computed too and ignored.
    """

    def __init__(self, model: BiLM, direction: int) -> None:
        self._network, self._encoder = model.network, model.encoder
        self._state = model.network.zero_state(1)
        self._direction = direction

    def read_prompt(self, tokens: Sequence[Token]) -> Tensor:
        """Read the boundary and a prompt; return as `read`."""
        streams = self._encoder.streams([tokens])
        for start in range(0, len(tokens) + 1, CHUNK):
            top = self._run(
                self._encoder.vectors(streams, slice(start, start + CHUNK), 1, self._state.device)
            )
        return self._predicted(top)

    def read(self, token: Token) -> Tensor:
        """Read a token; return the log-probability of each id as the next one, float64 on the CPU."""
        # Position 0 is the boundary token.
        streams = self._encoder.streams([[token]])
        return self._predicted(
            self._run(self._encoder.vectors(streams, slice(1, 2), 1, self._state.device))
        )

    def _run(self, x: Tensor) -> Tensor:
        run = self._network.recurrent(x, self._state, training=False)
        self._state = run.state
        top: Tensor = run.top[self._direction, -1]  # (1, direction_width)
        return top

    def _predicted(self, hidden: Tensor) -> Tensor:
        log_p: Tensor = self._network.head.log_probabilities(hidden)[0].double().cpu()
        if not log_p.isfinite().all():
            raise VectorError("the probabilities of the next token")
        return log_p


def _allowed(log_p: Tensor, end: int) -> Tensor:
    """Return the log-probabilities with -inf for control tokens, except for the end of the text."""
    allowed = log_p.clone()
    allowed[: len(CONTROLS)] = -torch.inf
    allowed[end] = log_p[end]
    return allowed


def draw(log_p: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """Draw an id; log-probabilities need not be normalised.

    Args:
        log_p: float64 (ids,), on the CPU.
        sampling: temperature, top_k and top_p.
        random: source of one random number.
    """
    # Stable, so that ids of equal probability have one order everywhere.
    order = log_p.sort(descending=True, stable=True).indices
    at = torch.rand((), dtype=torch.float64, generator=random)
    if sampling.temperature == 0:
        return int(order[0])
    ranked = log_p[order[: sampling.top_k]]
    probability = ((ranked - ranked[0]) / sampling.temperature).softmax(0)
    until = probability.cumsum(0)
    # The ids before which less than top_p has been reached.
    kept = int((until - probability < sampling.top_p * until[-1]).sum())
    place = int(torch.searchsorted(until, at * until[kept - 1], right=True))
    return int(order[min(place, kept - 1)])


def _joined(
    model: BiLM, prompt: str, ids: Sequence[int], drawn: Sequence[Token], backward: bool
) -> str:
    """Return the text of prompt and drawn tokens; the prompt keeps its own spelling."""
    decode = model.tokenizer.decode
    new = [token.id for token in drawn]
    both = [*new, *ids] if backward else [*ids, *new]
    alone, whole = (decode(np.array(one, np.int32)) for one in (ids, both))
    if backward and whole.endswith(alone):
        return whole.removesuffix(alone) + prompt
    if not backward and whole.startswith(alone):
        return prompt + whole.removeprefix(alone)
    # Pieces that together are another text than alone, such as bytes of one character.
    other = decode(np.array(new, np.int32))
    return other + prompt if backward else prompt + other
