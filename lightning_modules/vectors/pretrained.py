"""A trained bidirectional LM with its tokenizer and cleaning, ready to embed text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lightning_modules.config import MixConfig
from lightning_modules.models.model_folder import load_network
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.scalar_mix import ScalarMix
from lightning_modules.vectors.encoder import Encoder
from lightning_modules.vectors.scratch import allocate
from lightning_modules.vectors.selection import (
    Layers,
    Pooling,
    Selection,
    SelectionError,
    Spans,
    Unit,
)
from preprocess.errors import UserError
from preprocess.files.manifest import read_manifest
from preprocess.shards.stream import boundary_ids
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.aligned_text import NO_ID, TextAligner, Tokenised
from preprocess.tokenizers.base import Token
from preprocess.tokenizers.load import Tokenizer, load_tokenizer
from preprocess.tokenizers.spellings import MARKS, Spellings

WINDOW_BYTES = 1 << 28
WINDOW_CHARACTERS = 20_000, 200_000
CHARACTERS_A_TOKEN = 2

Text = str | Sequence[str]


class WarmUpError(UserError):
    """A warm start is asked of a model that has no warm-up text."""


@dataclass(frozen=True)
class Embedding:
    """A text's vectors.

    Attributes:
        text: cleaned.
        tokens: what has a vector, a token, a word, or the whole text; the places are in ``text``.
        vectors: (layers, tokens, dim) float32, also where there is one layer or one token. Those of
            a very long text lie in a nameless file that goes with the array.
        truncated: words longer than the model reads; the rest of each was left out.
    """

    text: str
    tokens: tuple[Token, ...]
    vectors: npt.NDArray[np.float32]
    truncated: int = 0


class BiLM(nn.Module):
    """A trained bidirectional language model.

        model = BiLM.from_pretrained("runs/quickstart/export")
        for embedding in model.embed(["A first text.", ["A", "second", "one"]]):
            embedding.vectors  # (layers, tokens, dim)

    Every text starts from zero state after the boundary token that training put before a document,
    so its vectors depend on nothing but the text (within 1e-5, whatever it is batched with; bit by
    bit in a batch of the same shape). A model that reads words by their spelling has a vector for a
    word outside its vocabulary as well.

    Attributes:
        dim: dimensions of a token's vector in any layer: forward half, then backward half; of a
            forward language model, its own alone.
        depth: layers, the token vectors (layer 0) included.
        content, tokenizer_content: hashes of the model and of the tokenizer it was trained with.
        warm_up: text that may be read before each text, none: the model has no such text.
    """

    def __init__(
        self,
        network: BiLMNetwork,
        tokenizer: Tokenizer,
        cleaning: CleaningConfig,
        boundary: Literal["eos", "bos_eos"],
        content: str = "",
        tokenizer_content: str = "",
        warm_up: str | None = None,
        type_vectors: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.content, self.tokenizer_content = content, tokenizer_content
        self.warm_up = warm_up
        self.starts = boundary_ids(boundary)
        self.reader = TextAligner(Cleaner(cleaning), tokenizer)
        self.dim = network.width
        self.depth = network.recurrent.config.layers + 1
        self._spellings: Spellings | None = None
        if isinstance(network.input, CharCNN):
            self._spellings = Spellings(
                tokenizer.spelling, tokenizer.vocabulary, network.input.max_characters
            )
        self.encoder = Encoder(network, self.starts, self._spellings, type_vectors)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """The model in a folder or at an fsspec URL.

        Raises:
            ManifestError: it holds no finished model, or one of a newer format.
            ModelError: a file of it is missing or damaged.
        """
        path = str(path)
        content = read_manifest(path, "export").content
        network, saved, type_vectors = load_network(path)
        cleaning = CleaningConfig.model_validate(saved["cleaning"])
        tokenizer = load_tokenizer(path)
        return cls(
            network,
            tokenizer,
            cleaning,
            saved["boundary"],
            content,
            saved.get("tokenizer", ""),
            saved.get("warm_up"),
            type_vectors,
        )

    def forward(self, ids: Tensor, lengths: Tensor, spellings: Spellings | None = None) -> Tensor:
        """All layers, with gradients.

        Args:
            ids: (batch, time) int64, padded with any id at the end.
            lengths: (batch,) int64, tokens of each row.
            spellings: how the ids are written, for a model that reads words by their spelling;
                none: as those of the tokenizer.

        Returns:
            (depth, batch, time, dim) float32; what lies past a row's length is padding.
        """
        return self.encoder.layers(ids, lengths, spellings)

    def embed(
        self,
        texts: Sequence[Text],
        batch_tokens: int = 8192,
        *,
        layers: Layers | Sequence[int] = "all",
        unit: Unit = "token",
        pooling: Pooling = "direction",
        mix: MixConfig | ScalarMix | None = None,
        warm_up: bool = False,
        memory_bytes: int = 1 << 28,
    ) -> list[Embedding]:
        """The vectors of each text, in order, after the cleaning that training text had.

        Args:
            texts: strings, or lists of words; one without tokens has vectors (layers, 0, dim).
            batch_tokens: tokens of a batch, padding included; a longer text is a batch of its own.
            layers: "all"; "top"; their "mean"; "mix", their weighted sum; "concat", one after the
                other; or numbers, 0 that of the input, -1 the top one.
            unit: a "token", a "word" (of a list its words, of a string what whitespace separates)
                or the whole "sentence" has a vector.
            pooling: of a word's or a sentence's tokens. "direction": the forward half at its last
                token and the backward half at its first, where each has read all of it; "mean",
                "first", "last".
            mix: weights and gamma for layers="mix"; none: equal weights, gamma 1.
            warm_up: start from the state after the model's warm-up text.
            memory_bytes: beyond which a text's vectors lie in a scratch file (in ``TMPDIR``).

        Raises:
            TypeError: a text is neither a string nor a list of words.
            SelectionError: the model has no such layer, or another number of weights.
            WarmUpError: the model has no warm-up text.
            ScratchError: there is no room for a scratch file.
        """
        if isinstance(texts, str):
            raise TypeError("embed takes a list of texts; write [text] for one")
        chosen = tuple(layers) if not isinstance(layers, str) else layers
        selection = Selection(chosen, unit, pooling, _numbers(mix))
        return self.embed_selection(texts, selection, batch_tokens, warm_up, memory_bytes)

    def iter_embed(
        self, texts: Iterable[Text], batch_tokens: int = 8192, **how: Any
    ) -> Iterator[Embedding]:
        """As `embed`, for texts without end: some of them at a time, in order, in bounded memory."""
        window: list[Text] = []
        characters, most = 0, window_characters(self.depth, self.dim)
        for text in texts:
            window.append(text)
            characters += len(text) if isinstance(text, str) else sum(map(len, text))
            if characters >= most or len(window) >= most:
                yield from self.embed(window, batch_tokens, **how)
                window, characters = [], 0
        yield from self.embed(window, batch_tokens, **how)

    @torch.inference_mode()
    def embed_selection(
        self,
        texts: Sequence[Text],
        selection: Selection,
        batch_tokens: int = 8192,
        warm_up: bool = False,
        memory_bytes: int = 1 << 28,
    ) -> list[Embedding]:
        """As `embed`, with all that is chosen of the vectors in one."""
        selection.check(self.depth)
        read = self.reader.read(texts)
        state = self._first_state(warm_up)
        needed = selection.read_layers(self.depth)
        new = partial(allocate, memory_bytes=memory_bytes)
        found: dict[int, npt.NDArray[np.float32]] = {}
        spans: list[Spans] = []
        marked: list[tuple[Token, ...]] = []
        for text in read:
            tokens, of_token = _units(text, selection.unit)
            marked.append(tokens)
            spans.append(of_token)
        self.encoder.learn(text.tokens for text in read)
        for batch in plan_batches([len(text.tokens) for text in read], batch_tokens):
            tokens_of = [read[number].tokens for number in batch]
            arrays = self.encoder.encode(tokens_of, needed, state, memory_bytes)
            for number, array in zip(batch, arrays, strict=True):
                found[number] = selection.of(array, spans[number], self.network.directions, new)
        return [
            Embedding(text.text, marked[number], found[number], self._truncated(text.tokens))
            for number, text in enumerate(read)
        ]

    def _first_state(self, warm_up: bool) -> Tensor:
        zero = self.network.zero_state(1)
        if not warm_up:
            return zero
        if self.warm_up is None:
            raise WarmUpError(
                "this model has no warm-up text to start from; export it with export.warm_up, or "
                "leave warm_up out"
            )
        [text] = self.reader.read([self.warm_up])
        return self.encoder.state_after(text.tokens, zero)

    def _truncated(self, tokens: Iterable[Token]) -> int:
        """How many of these words are too long for the model to read to their end."""
        if self._spellings is None:
            return 0
        longest = self._spellings.max_characters - MARKS
        return sum(len(token.spelling.encode("utf-8", "ignore")) > longest for token in tokens)


def _numbers(mix: MixConfig | ScalarMix | None) -> MixConfig:
    if not isinstance(mix, ScalarMix):
        return mix or MixConfig()
    if mix.layer_norm == "batch":
        raise SelectionError(
            "mix: a layer norm over the batch makes a text's vectors depend on its neighbours; give "
            "the layers of BiLM.forward to the ScalarMix itself, or take layer_norm='text'"
        )
    weights = tuple(mix.weights.detach().tolist())
    return MixConfig(weights=weights, gamma=mix.gamma.item(), layer_norm=bool(mix.layer_norm))


def _units(text: Tokenised, unit: Unit) -> tuple[tuple[Token, ...], Spans]:
    """What has a vector, and the tokens of each."""
    count = len(text.tokens)
    if unit == "word":
        return text.words, Spans(*text.word_spans())
    if unit == "token":
        return text.tokens, Spans(np.arange(count), np.arange(count))
    whole = (Token(NO_ID, text.text, 0, len(text.text)),) if count else ()
    return whole, Spans(np.zeros(len(whole), np.int64), np.full(len(whole), count - 1))


def window_characters(layers: int, dim: int) -> int:
    """Characters of the texts that are embedded at once where texts come one after the other."""
    least, most = WINDOW_CHARACTERS
    return max(least, min(most, WINDOW_BYTES // (4 * layers * dim) * CHARACTERS_A_TOKEN))


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Numbers of texts batch by batch, sorted by length so that little is padding."""
    batches: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda n: (lengths[n], n)):
        if batches and (len(batches[-1]) + 1) * max(1, lengths[number]) <= batch_tokens:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches
