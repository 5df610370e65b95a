"""What the validations of a training read of the held-out split. Imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lightning_modules.config import CharCNNInputConfig, ModelConfig, SampledSoftmaxConfig
from lightning_modules.sizes import SpelledTypes, flops_per_token
from lightning_modules.training.config import TrainConfig
from preprocess.shards.held_out_rows import Row, contiguous_rows, rows_of_documents, sampled_rows
from preprocess.shards.stream import TokenStream

LEAST_TOKENS = 2000
"""A sample has at least so many tokens, whatever they cost: the perplexity of fewer differs by more than 11 %
from that of the whole split (standard deviation; measured as `WARM_UP` was)."""
WARM_UP = 64
"""Tokens that are read, but not scored, beside a row or a piece that begins within a document.

Measured with an LSTM 512 / 128 that was trained with carried state, on English Wikipedia: after the zero
state, the first 16 tokens together lose 16 nats more than with the state before them, the next 48 lose 2
more, and later ones none. Compared with 16 rows, the perplexity of rows of 1,024 tokens is 1.3 % higher
without the warm-up, and 0.3 % lower with it."""
LEAST_ROW, LEAST_WARM_ROW = 64, 1024
"""Fewest tokens of a row: those of a window, or sixteen times `WARM_UP` if rows have to warm up."""
TYPICAL_TYPES = SpelledTypes(0.3, 10)
"""Typical of a window: 0.3 distinct words per token, each of 8 bytes and 2 marks."""


@dataclass(frozen=True)
class HeldOutSample:
    """What the validations of a training read.

    It is part of a checkpoint, so that a resumed training compares losses of the same text.

    Attributes:
        rows: largest number of rows over all ranks.
        tokens: largest number of positions to read; None means the whole split.
        warm_up: positions that are read, but not scored, to warm up the state of rows and pieces that
            begin within a document.
    """

    rows: int
    tokens: int | None = None
    warm_up: int = WARM_UP

    def rows_of(self, stream: TokenStream, whole_documents: bool) -> list[Row]:
        """Return the rows of a split.

        Args:
            stream: the split.
            whole_documents: whether each document is read from the zero state.
        """
        if self.tokens is not None:
            return sampled_rows(stream, self.rows, self.tokens, self.warm_up, whole_documents)
        if whole_documents:
            return rows_of_documents(stream, self.rows)
        return contiguous_rows(stream, self.rows, self.warm_up)

    def state(self) -> dict[str, Any]:
        """Return the attributes, for a checkpoint."""
        return asdict(self)

    @classmethod
    def of_checkpoint(cls, state: Mapping[str, Any] | None) -> "HeldOutSample":
        """Return the sample of a checkpoint; None means a checkpoint of an earlier version."""
        return FORMER if state is None else cls(**state)


FORMER = HeldOutSample(rows=16, warm_up=0)
"""What the validations of earlier versions read."""


def whole_split(train: TrainConfig, tokens: int) -> HeldOutSample:
    """Return the "sample" that is the whole split.

    Args:
        train: settings of the training.
        tokens: number of positions of the split.
    """
    return HeldOutSample(_rows(train, tokens))


def training_sample(
    model: ModelConfig, train: TrainConfig, vocabulary: int, tokens: int
) -> HeldOutSample:
    """Return what each validation of a training reads: the whole split, or a sample of it.

    A sample has at most ``evaluate_share * evaluate_steps * tokens_a_step / evaluation_cost`` tokens, so
    that the validations take at most ``evaluate_share`` of the time of the steps, and at least
    `LEAST_TOKENS`. It does not depend on ``train.steps``, so that a longer training has the same.

    Args:
        model: the network.
        train: settings of the training.
        vocabulary: number of token ids.
        tokens: number of positions of the split.
    """
    if train.evaluate_share is None:
        return whole_split(train, tokens)
    time = train.evaluate_share * train.evaluate_steps * train.tokens_a_step
    most = max(LEAST_TOKENS, int(time / evaluation_cost(model, vocabulary)))
    if tokens <= most:
        return whole_split(train, tokens)
    return HeldOutSample(_rows(train, most), most)


def evaluation_cost(model: ModelConfig, vocabulary: int) -> float:
    """Return the FLOPs of evaluating a token, as a share of those of training on it.

    A training step has three times the products of the forward pass (`sizes.flops_per_token`), so this
    is 1/3. It is more with a sampled softmax, because an evaluation is over the full vocabulary.

    Args:
        model: the network.
        vocabulary: number of token ids.
    """
    if not isinstance(model.head, SampledSoftmaxConfig):
        return 1 / 3
    counts = np.ones(model.predictable_ids(vocabulary), np.uint64)
    types = TYPICAL_TYPES if isinstance(model.input, CharCNNInputConfig) else None
    sampled = flops_per_token(model, counts, types=types)
    width, samples = model.recurrent.direction_width, model.head.samples
    more = 6.0 * model.direction_count * width * (len(counts) - samples - 1)
    return max(1 / 3, (sampled + more) / sampled / 3)


def _rows(train: TrainConfig, tokens: int) -> int:
    least = LEAST_ROW if train.reset_state else LEAST_WARM_ROW
    return max(1, min(train.evaluate_rows, tokens // least))
