"""A cache of the vectors that a character CNN computes from the spelling of words.

The CNN costs more than all recurrent layers together, and texts repeat their words, so each distinct
word is computed once. A word's vector must not depend on the words computed with it, to the bit:
words therefore pass the network in blocks of a fixed size, padded to one of a few widths.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.inputs.word_types import LENGTHS
from preprocess.tokenizers.base import BOS, CONTROLS, EOS, UNKNOWN
from preprocess.tokenizers.load import Tokenizer
from preprocess.tokenizers.spellings import (
    PAD,
    TEXT_BEGIN,
    TEXT_END,
    WORD_BEGIN,
    WORD_END,
    Characters,
    spell,
)

ROW_BLOCK = 64
"""Words per block. Larger blocks are no faster and consist mostly of padding for a short text."""

IDS_AT_ONCE = 1 << 14
"""Ids per call when the vectors of a whole vocabulary are computed."""

BEGIN, END = object(), object()
"""The boundary tokens as words. They are not strings, because any string may be a word of a text."""

Word = str | object


class _Block(NamedTuple):
    words: list[Word]
    vectors: Tensor  # (at least words, width)


class TypeVectors:
    """The vectors of words under a character CNN, for inference.

    If the network's weights change, the cache and the precomputed vectors are discarded.

    Args:
        network: the character CNN.
        precomputed: vectors of the tokenizer's ids, (vocabulary, width) float32. None means that all
            vectors are computed.
        kept_bytes: size of the cache. A full cache is emptied.
    """

    def __init__(
        self,
        network: CharCNN,
        precomputed: Tensor | None = None,
        kept_bytes: int = 1 << 28,
    ) -> None:
        self._network, self._precomputed = network, precomputed
        self._kept_bytes = kept_bytes
        self._rows: dict[Word, int] = {}
        self._table: Tensor | None = None
        self._versions = self._weights_versions()

    def of(self, words: Sequence[Word], ids: Sequence[int]) -> Tensor:
        """Return the vectors of distinct words, (words, width) float32, on the network's device.

        Args:
            words: spellings, or `BEGIN` and `END`.
            ids: token id of each word.
        """
        self.learn(words, ids)
        assert self._table is not None
        rows = torch.tensor([self._rows[word] for word in words], device=self._table.device)
        return self._table[rows]

    def learn(self, words: Sequence[Word], ids: Sequence[int]) -> None:
        """Compute and cache the vectors of distinct words; the arguments are those of `of`.

        Many words at once are faster, because few blocks have padding.
        """
        self._forget_if_stale()
        id_of = dict(zip(words, ids, strict=True))
        new = [word for word in words if word not in self._rows]
        if self._table is None or len(self._rows) + len(new) > len(self._table):
            new = list(words)
            self._make_table(len(new))
        assert self._table is not None
        for block in self._blocks(new, id_of):
            first = len(self._rows)
            self._rows.update(zip(block.words, range(first, first + len(block.words)), strict=True))
            self._table[first : len(self._rows)] = block.vectors[: len(block.words)]

    @property
    def capacity(self) -> int:
        """Number of words that the cache holds."""
        return self._kept_bytes // (4 * self._network.width)

    def _weights_versions(self) -> list[int]:
        """Return the version counter of each weight, which torch increments when the weight changes."""
        return [weight._version for weight in self._network.parameters()]

    def _forget_if_stale(self) -> None:
        device, versions = self._network.bias.device, self._weights_versions()
        if versions != self._versions:
            self._versions, self._precomputed, self._table = versions, None, None
        if self._precomputed is not None:
            self._precomputed = self._precomputed.to(device)
        if self._table is not None and self._table.device != device:
            self._table = None

    def _make_table(self, needed: int) -> None:
        self._rows = {}
        rows, width = max(needed, self.capacity), self._network.width
        self._table = torch.empty(rows, width, device=self._network.bias.device)

    def _blocks(self, words: Sequence[Word], ids: Mapping[Word, int]) -> Iterator[_Block]:
        known: list[Word] = []
        unknown: list[Word] = []
        limit = 0 if self._precomputed is None else len(self._precomputed)
        for word in words:
            (known if UNKNOWN < ids[word] < limit else unknown).append(word)
        if known:
            assert self._precomputed is not None
            yield _Block(known, self._precomputed[torch.tensor([ids[word] for word in known])])
        characters = self._spell(unknown)  # (unknown, max_characters)
        lengths = (characters != PAD).sum(1)  # (unknown,)
        widths = np.array([*(n for n in LENGTHS if n < characters.shape[1]), characters.shape[1]])
        bucket = np.searchsorted(widths, lengths)
        for number, width in enumerate(widths.tolist()):
            inside = np.flatnonzero(bucket == number)
            for start in range(0, len(inside), ROW_BLOCK):
                some = inside[start : start + ROW_BLOCK]
                block = np.full((ROW_BLOCK, width), PAD, np.int64)
                block[: len(some)] = characters[some, :width]
                on_device = torch.from_numpy(block).to(self._network.bias.device)
                yield _Block([unknown[n] for n in some], self._network.vectors((on_device,)))

    def _spell(self, words: Sequence[Word]) -> Characters:
        spelt = [word if isinstance(word, str) else "" for word in words]
        rows = spell(spelt, self._network.max_characters)
        for mark, character in ((BEGIN, TEXT_BEGIN), (END, TEXT_END)):
            if mark in words:
                row = rows[words.index(mark)]
                row[:] = PAD
                row[:3] = WORD_BEGIN, character, WORD_END
        return rows


@torch.inference_mode()
def vectors_of_vocabulary(network: CharCNN, tokenizer: Tokenizer) -> Tensor:
    """Return the vector of every id of a tokenizer, (vocabulary, width) float32.

    The unknown token has no spelling; its vector is 0. The network is set to evaluation mode.
    """
    vectors = TypeVectors(network.eval(), kept_bytes=0)
    rows = [torch.zeros(1, network.width), vectors.of([BEGIN, END], [BOS, EOS])]
    for start in range(len(CONTROLS), tokenizer.vocabulary, IDS_AT_ONCE):
        ids = range(start, min(start + IDS_AT_ONCE, tokenizer.vocabulary))
        rows.append(vectors.of([tokenizer.spelling(id_) for id_ in ids], ids))
    return torch.cat(rows)
