"""Texts as padded tensors, the vectors of all layers, and their pooling, with gradients."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.config import DEFAULT_POOLING
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.vectors.encoder import Encoder
from lightning_modules.vectors.selection import Pooling, Unit, units_of
from lightning_modules.vectors.type_vectors import TypeVectors
from preprocess.errors import UserError
from preprocess.tokenizers.aligned_text import Tokenised
from preprocess.tokenizers.base import BOS, EOS, UNKNOWN
from preprocess.tokenizers.load import Tokenizer
from preprocess.tokenizers.spellings import Spellings


class BatchError(UserError):
    """Raised if a batch was made by a model with other ids, or for other units."""


class BatchTexts:
    """What a batch holds besides tensors.

    Not a dataclass or a sequence, because Lightning converts the elements of these.

    Args:
        texts: the cleaned texts with their tokens and words.
        unit: what the units are.
        spellings: spelling of each id, if the model reads words by their spelling.
        ids_content: `TensorForward.ids_content` of the model that made the batch.
    """

    def __init__(
        self,
        texts: tuple[Tokenised, ...],
        unit: Unit,
        spellings: Spellings | None,
        ids_content: str,
    ) -> None:
        self.texts, self.unit, self.spellings = texts, unit, spellings
        self.ids_content = ids_content


class TextBatch(NamedTuple):
    """Texts as tensors that `BiLM.forward` and `BiLMEmbedder` read.

    There is at least one position and one unit in each row, so that a text without tokens is a row of
    padding. A batch can be pickled, for example by a worker of a `DataLoader`.

    Attributes:
        ids: token ids, (batch, time) int64, 0 past the end of a text. If the model reads words by
            their spelling, each word outside the vocabulary has an id of its own in the batch, from
            the size of the vocabulary on.
        lengths: number of tokens of each text, (batch,) int64.
        first: index of the first token of each unit, (batch, units) int64, 0 past the last unit.
        last: index of the last token of each unit, (batch, units) int64, 0 past the last unit.
        units: number of units of each text, (batch,) int64.
        source: the texts, the unit, and the spelling of each id.
    """

    ids: Tensor
    lengths: Tensor
    first: Tensor
    last: Tensor
    units: Tensor
    source: BatchTexts

    @property
    def texts(self) -> tuple[Tokenised, ...]:
        """The cleaned texts with their tokens and words."""
        return self.source.texts

    @property
    def unit(self) -> Unit:
        """What the units are."""
        return self.source.unit

    @property
    def spellings(self) -> Spellings | None:
        """Spelling of each id, if the model reads words by their spelling; else None."""
        return self.source.spellings

    @property
    def mask(self) -> Tensor:
        """True at the units of a text, False past its last one; bool (batch, units)."""
        return torch.arange(self.first.shape[1], device=self.units.device) < self.units[:, None]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch with its tensors on a device."""
        return self._with(lambda one: one.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the batch with its tensors in pinned memory; called by a `DataLoader`."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Self:
        names = ("ids", "lengths", "first", "last", "units")
        tensors: dict[str, Any] = {name: change(getattr(self, name)) for name in names}
        return self._replace(**tensors)

    def pool(self, vectors: Tensor, pooling: Pooling | None = None, directions: int = 2) -> Tensor:
        """Return the vectors of units, with gradients; 0 past the last unit of a text.

        Args:
            vectors: vectors of tokens, (layers, batch, time, dim).
            pooling: as in `BiLM.embed`.
            directions: 2 if a vector has a forward and a backward half, 1 if it has a forward half only, 0
                for a model without recurrent layers, where "direction" is "mean".

        Returns:
            (layers, batch, units, dim), in the dtype of ``vectors``.
        """
        chosen = pooling or DEFAULT_POOLING[self.unit]
        return pool_spans(vectors, self.first, self.last, self.mask, chosen, directions)


def pool_spans(
    vectors: Tensor,
    first: Tensor,
    last: Tensor,
    mask: Tensor,
    pooling: Pooling,
    directions: int = 2,
) -> Tensor:
    """Return the vectors of spans of tokens, with gradients.

    Args:
        vectors: vectors of tokens, (layers, batch, time, dim).
        first: first token of each span, (batch, spans) int64.
        last: last token of each span, (batch, spans) int64, not below ``first`` where ``mask`` is True.
            Spans may overlap.
        mask: False for spans that get the vector 0, bool (batch, spans).
        pooling: how a span's vectors are combined; see `BiLM.embed`.
        directions: as in `TextBatch.pool`.

    Returns:
        (layers, batch, spans, dim), in the dtype of ``vectors``.
    """
    layers, batch, time, dim = vectors.shape
    rows = torch.arange(batch, device=first.device)[:, None] * time  # of the flat batch of tokens
    first, last = (rows + first.clamp(0, time - 1))[mask], (rows + last.clamp(0, time - 1))[mask]
    # (batch * time, layers, dim)
    flat = vectors.permute(1, 2, 0, 3).reshape(-1, layers, dim)
    if pooling == "mean" or (pooling == "direction" and not directions):
        counts = last - first + 1  # (spans inside the mask,)
        starts = counts.cumsum(0) - counts
        steps = torch.arange(int(counts.sum()), device=first.device)
        tokens = steps - (starts - first).repeat_interleave(counts)
        pooled = F.embedding_bag(tokens, flat.flatten(1), starts, mode="mean")
        pooled = pooled.view(-1, layers, dim)
    elif pooling == "direction" and directions == 2:
        half = dim // 2
        pooled = torch.cat([flat[last, :, :half], flat[first, :, half:]], 2)
    else:
        pooled = flat[first if pooling == "first" else last]
    found = pooled.new_zeros(*mask.shape, layers, dim)
    found[mask] = pooled
    return found.permute(2, 0, 1, 3)


class TensorForward(nn.Module):
    """The forward pass of a `BiLM` over padded tensors."""

    network: BiLMNetwork
    tokenizer: Tokenizer
    starts: tuple[int, int]
    matmul_dtype: torch.dtype | None = None
    _spellings: Spellings | None
    _types: TypeVectors | None

    @property
    def encoder(self) -> Encoder:
        """The encoder of the present ``network``, which a program may have replaced or wrapped."""
        known = (self._spellings, self._types)
        return Encoder(self.network, self.starts, *known, self.matmul_dtype)

    @cached_property
    def ids_content(self) -> str:
        """A hash of what ids mean: their spellings, and whether unknown words have ids of their own.

        Models with the same vocabulary have the same hash, so they read each other's batches.
        """
        hashed = hashlib.sha256(b"" if self._spellings is None else b"by spelling")
        for token in range(self.tokenizer.vocabulary):
            hashed.update(b"\0" + self.tokenizer.spelling(token).encode("utf-8", "surrogatepass"))
        return hashed.hexdigest()

    def check_batch(self, batch: TextBatch) -> None:
        """Check that this model can read the ids of a batch.

        Raises:
            BatchError: if the batch was made by a model with other ids.
        """
        if batch.source.ids_content != self.ids_content:
            raise BatchError(
                "the batch was made by another language model, whose ids mean other tokens; make the "
                "batch again with the `batch` method of the model or the embedder that reads it"
            )

    def input_vectors(self, ids: Tensor, spellings: Spellings | None = None) -> Tensor:
        """Return the vectors that the recurrent layers read, (batch, time, direction_width).

        In evaluation mode, ``forward(ids, lengths, spellings, inputs=input_vectors(ids, spellings))``
        is ``forward(ids, lengths, spellings)``. Replace the vectors to see what depends on them.

        Args:
            ids: token ids, (batch, time) int64.
            spellings: as in `forward`.
        """
        return self.encoder.input_vectors(ids, spellings)

    def forward(
        self,
        ids: Tensor,
        lengths: Tensor,
        spellings: Spellings | None = None,
        inputs: Tensor | None = None,
    ) -> Tensor:
        """Return the vectors of all layers, with gradients, and in training mode with dropout.

        Args:
            ids: token ids, (batch, time) int64, padded at the end with any id.
            lengths: number of tokens of each row, (batch,) int64.
            spellings: spelling of each id, for a model that reads words by their spelling. None
                means the tokenizer's.
            inputs: vectors that replace the output of the input encoder, (batch, time,
                direction_width); no dropout is applied to them.

        Returns:
            (depth, batch, time, dim) in the dtype of the weights. Positions past a row's length are
            undefined.

        Example:
            >>> mix = ScalarMix(model.depth)  # learned weights of the layers
            >>> vectors = mix(model(ids, lengths), lengths)  # (batch, time, dim)
        """

        def layers() -> Tensor:
            if not len(ids):  # not every layer takes a batch without rows
                weight = next(self.network.parameters())
                depth = self.network.recurrent.config.layers + 1
                return weight.new_zeros(depth, 0, ids.shape[1], self.network.width)
            return self.encoder.layers(ids, lengths, spellings, inputs)

        # Nothing here gains from being traced, and spellings cannot be.
        return torch.compiler.disable(layers)() if torch.compiler.is_compiling() else layers()


def text_batch(
    texts: Sequence[Tokenised],
    unit: Unit,
    vocabulary: int,
    ids_content: str,
    max_characters: int | None = None,
) -> TextBatch:
    """Return texts as padded tensors on the CPU.

    Args:
        texts: the texts.
        unit: what gets a vector.
        vocabulary: number of ids of the tokenizer.
        ids_content: `TensorForward.ids_content` of the model.
        max_characters: positions of a word, if the model reads words by their spelling.
    """
    spelling: dict[int, str] = {UNKNOWN: "", BOS: "", EOS: ""}
    unknown: dict[str, int] = {}
    ids, first, last = [], [], []
    for text in texts:
        row = [token.id for token in text.tokens]
        if max_characters is not None:
            for place, token in enumerate(text.tokens):
                if token.id == UNKNOWN:
                    row[place] = unknown.setdefault(token.spelling, vocabulary + len(unknown))
                spelling[row[place]] = token.spelling
        spans = units_of(text, unit)[1]
        ids.append(row)
        first.append(spans.first.tolist())
        last.append(spans.last.tolist())
    spellings = None
    if max_characters is not None:
        # A vocabulary of 0 keeps no table, so the batch is small when it is pickled.
        spellings = Spellings(spelling.__getitem__, 0, max_characters)
    source = BatchTexts(tuple(texts), unit, spellings, ids_content)
    return TextBatch(
        _padded(ids), _counts(ids), _padded(first), _padded(last), _counts(first), source
    )


def _counts(rows: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([len(row) for row in rows], dtype=torch.int64, device="cpu")


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return rows of integers as int64 (rows, longest, but at least 1), padded with 0."""
    longest = max([1, *map(len, rows)])
    padded = torch.zeros(len(rows), longest, dtype=torch.int64, device="cpu")
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = torch.tensor(values, dtype=torch.int64, device="cpu")
    return padded
