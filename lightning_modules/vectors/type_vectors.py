"""A cache of the vectors that a character CNN computes from the spelling of words.

The CNN costs more than all recurrent layers together, and texts repeat their words, so each distinct
word is computed once. A word's vector must not depend on the words computed with it, to the bit:
words therefore pass the network in blocks of a fixed size, padded to one of a few widths.
"""

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.inputs.word_char_cnn import WordCharCNN
from lightning_modules.nn.inputs.word_types import LENGTHS
from lightning_modules.nn.window import Types
from lightning_modules.vectors.forks import after_fork_renew
from lightning_modules.vectors.streams import Word, to_device
from preprocess.errors import UserError
from preprocess.tokenizers.base import BOS, CONTROLS, EOS, UNKNOWN
from preprocess.tokenizers.dictionary_speller import DictionarySpeller
from preprocess.tokenizers.load import Tokenizer
from preprocess.tokenizers.spellings import ByteSpeller, Characters, Speller
from preprocess.tokenizers.words import WordTokenizer

ROW_BLOCK = 64
"""Words per block. Larger blocks are no faster and consist mostly of padding for a short text."""

IDS_AT_ONCE = 1 << 14
"""Ids per call when the vectors of a whole vocabulary are computed."""

BEGIN, END = object(), object()
"""The boundary tokens as words. They are not strings, because any string may be a word of a text."""

Advance = Callable[[int], None]
"""Called during long work with the number of words or positions that were computed."""

SPELT_AT_ONCE = 1 << 14
"""Words whose characters are in memory at once."""


def speller_of(network: CharCNN, tokenizer: Tokenizer) -> Speller:
    """Return what converts the words of a tokenizer to the character ids that a character CNN reads.

    Raises:
        UserError: the network has vectors of words, but the tokenizer has no vocabulary of words.
    """
    if not isinstance(network, WordCharCNN):
        return ByteSpeller(network.max_characters)
    find = None
    if network.words is not None:
        if not isinstance(tokenizer, WordTokenizer):
            raise UserError(
                f"the model has vectors of words, but its tokenizer is {tokenizer.kind}, not word; both "
                "must be of one model, import it again with `biloom import-elmo`"
            )
        find = tokenizer.find
    code_points = network.code_points.cpu().numpy()
    return DictionarySpeller(code_points, network.max_characters, find)


def fingerprint(module: nn.Module) -> str:
    """Return a hash of all weights of a module: their names, dtypes, shapes and bytes.

    A parametrised weight is a function of the parameters and buffers that are hashed.
    A module with hooks gets another hash in each call, because a hook can change its results.
    """
    hashed = xxhash.xxh3_128()
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole = tensor.detach().contiguous().view(-1).cpu()
        hashed.update(whole.view(torch.uint8).numpy().data)
    if any(one._forward_hooks or one._forward_pre_hooks for one in module.modules()):
        hashed.update(uuid.uuid4().bytes)
    return hashed.hexdigest()


class _Block(NamedTuple):
    words: list[Word]
    vectors: Tensor  # (at least words, width)


class TypeVectors:
    """The vectors of words under a character CNN, for inference. Safe to use from several threads.

    Vectors are kept from call to call of `refresh` as long as the weights are the same, bit by bit.
    Torch's version counters do not show this: a fused optimiser, ``weight.data``, ``half()`` or
    ``load_state_dict(assign=True)`` changes weights without raising them.

    A pickled or copied object has the precomputed vectors, but not the cache.

    Args:
        network: the character CNN.
        precomputed: vectors of the tokenizer's ids, (vocabulary, width) float32. None means that all
            vectors are computed.
        kept_bytes: size of the cache. A full cache is emptied.
        speller: converts words to character ids; None means `ByteSpeller`.
    """

    def __init__(
        self,
        network: CharCNN,
        precomputed: Tensor | None = None,
        kept_bytes: int = 1 << 28,
        speller: Speller | None = None,
    ) -> None:
        self._network, self._precomputed = network, precomputed
        self._speller = speller or ByteSpeller(network.max_characters)
        self._kept_bytes = kept_bytes
        self._weights = "" if precomputed is None else fingerprint(network)
        self._start()

    def _start(self) -> None:
        self._rows: dict[Word, int] = {}
        self._table: Tensor | None = None
        self._matmul_dtype: torch.dtype | None = None
        self.renew_lock()
        after_fork_renew(self)

    def renew_lock(self) -> None:
        """Replace the lock, which another thread may hold; the cache is valid at every moment."""
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made from: all but the cache and its lock."""
        return {k: v for k, v in vars(self).items() if k not in ("_rows", "_table", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def refresh(self, network: CharCNN, matmul_dtype: torch.dtype | None = None) -> None:
        """Discard the cache and the precomputed vectors if the weights or their device changed.

        The cache is also discarded if the dtype of matrix products changed. Precomputed vectors, which are
        in float32, are not.

        Call it before `of` and `learn`, once for all texts that are embedded together. It reads all
        weights: 2.5 ms at the size of ELMo's CNN (72 MB) on a CPU.

        Args:
            network: the model's present character CNN, which may be another module than before.
            matmul_dtype: dtype of autocast, None without it.
        """
        weights = fingerprint(network)
        with self._lock:
            if matmul_dtype != self._matmul_dtype:
                self._table, self._matmul_dtype = None, matmul_dtype
            self._network = network
            device = self._device
            if weights != self._weights:
                self._table = self._precomputed = None
                self._weights = weights
            if self._precomputed is not None:
                self._precomputed = self._precomputed.to(device)
            if self._table is not None and self._table.device != device:
                self._table = None

    def of(self, words: Sequence[Word], ids: Sequence[int]) -> Tensor:
        """Return the vectors of distinct words, (words, width) float32, on the network's device.

        Args:
            words: spellings, or `BEGIN` and `END`.
            ids: token id of each word.
        """
        with self._lock:
            self.learn(words, ids)
            assert self._table is not None
            rows = np.array([self._rows[word] for word in words], np.int64)
            return self._table[to_device(rows, self._table.device)]

    def learn(
        self, words: Sequence[Word], ids: Sequence[int], advance: Advance = lambda _: None
    ) -> None:
        """Compute and cache the vectors of distinct words.

        Many words at once are faster, because few blocks have padding.

        Args:
            words: as in `of`.
            ids: as in `of`.
            advance: called with the number of words of each block, after it was computed.
        """
        with self._lock:
            id_of = dict(zip(words, ids, strict=True))
            new = [word for word in words if word not in self._rows]
            if self._table is None or len(self._rows) + len(new) > len(self._table):
                new = list(words)
                self._make_table(len(new))
            assert self._table is not None
            for block in self._blocks(new, id_of):
                first, number = len(self._rows), len(block.words)
                self._table[first : first + number] = block.vectors[:number]
                self._rows.update(zip(block.words, range(first, first + number), strict=True))
                advance(number)

    @property
    def capacity(self) -> int:
        """Number of words that the cache holds."""
        return self._kept_bytes // (4 * self._network.width)

    @property
    def _device(self) -> torch.device:
        return self._network.bias.device

    def _make_table(self, needed: int) -> None:
        self._rows = {}
        rows, width = max(needed, self.capacity), self._network.width
        self._table = torch.empty(rows, width, dtype=torch.float32, device=self._device)

    def _blocks(self, words: Sequence[Word], ids: Mapping[Word, int]) -> Iterator[_Block]:
        known: list[Word] = []
        unknown: list[Word] = []
        limit = 0 if self._precomputed is None else len(self._precomputed)
        for word in words:
            (known if UNKNOWN < ids[word] < limit else unknown).append(word)
        if known:
            assert self._precomputed is not None
            rows = to_device(
                np.array([ids[word] for word in known], np.int64), self._precomputed.device
            )
            yield _Block(known, self._precomputed[rows])
        for start in range(0, len(unknown), SPELT_AT_ONCE):
            yield from self._computed(unknown[start : start + SPELT_AT_ONCE])

    def _computed(self, unknown: Sequence[Word]) -> Iterator[_Block]:
        characters = self._spell(unknown)  # (unknown, max_characters)
        lengths = (characters != self._speller.pad).sum(1)  # (unknown,)
        widths = np.array([*(n for n in LENGTHS if n < characters.shape[1]), characters.shape[1]])
        bucket = np.searchsorted(widths, lengths)
        for number, width in enumerate(widths.tolist()):
            inside = np.flatnonzero(bucket == number)
            for start in range(0, len(inside), ROW_BLOCK):
                some = inside[start : start + ROW_BLOCK]
                block = np.full((ROW_BLOCK, width), self._speller.pad, np.int64)
                block[: len(some)] = characters[some, :width]
                types = Types(
                    (to_device(block, self._device),), torch.arange(ROW_BLOCK, device=self._device)
                )
                # The module is called, so that its hooks run.
                vectors = self._network(types, training=False)
                yield _Block([unknown[n] for n in some], vectors)

    def _spell(self, words: Sequence[Word]) -> Characters:
        rows = self._speller.spell([word if isinstance(word, str) else "" for word in words])
        for mark, token in ((BEGIN, BOS), (END, EOS)):
            if mark in words:
                rows[words.index(mark)] = self._speller.boundary(token)
        return rows


@torch.inference_mode()
def vectors_of_vocabulary(network: CharCNN, tokenizer: Tokenizer) -> Tensor:
    """Return the vector of every id of a tokenizer, (vocabulary, width) float32.

    The unknown token has no spelling; its vector is 0.
    """
    vectors = TypeVectors(network, kept_bytes=0)
    rows = [torch.zeros(1, network.width), vectors.of([BEGIN, END], [BOS, EOS])]
    for start in range(len(CONTROLS), tokenizer.vocabulary, IDS_AT_ONCE):
        ids = range(start, min(start + IDS_AT_ONCE, tokenizer.vocabulary))
        rows.append(vectors.of([tokenizer.spelling(id_) for id_ in ids], ids))
    return torch.cat(rows)
