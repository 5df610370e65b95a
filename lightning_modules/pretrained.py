"""A trained bidirectional LM with its tokenizer and cleaning, ready to embed text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lightning_modules.model_folder import load_network
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.char_cnn import CharCNN
from lightning_modules.nn.window import Types
from lightning_modules.types_of_window import types_of_window
from preprocess.config import CleaningConfig
from preprocess.manifest import read_manifest
from preprocess.normalize import Cleaner
from preprocess.spellings import Spellings
from preprocess.token_stream import boundary_ids
from preprocess.tokenizer import CONTROLS, Token, Tokenizer, load_tokenizer

CHUNK = 512
"""Tokens of a text that are in the network at once; the state is carried from chunk to chunk."""


@dataclass(frozen=True)
class Embedding:
    """A text's vectors. ``vectors`` is (layers, tokens, dim) float32, layer 0 the token vectors.

    ``text`` is cleaned; the tokens' places are in it.
    """

    text: str
    tokens: tuple[Token, ...]
    vectors: npt.NDArray[np.float32]


class BiLM(nn.Module):
    """A trained bidirectional language model.

        model = BiLM.from_pretrained("runs/quickstart/export")
        for embedding in model.embed(["A first text.", "A second one."]):
            embedding.vectors  # (layers, tokens, dim)

    Every text starts from zero state after the boundary token that training put before a document,
    so its vectors depend on nothing but the text (within 1e-5, whatever it is batched with). A model
    that reads words by their spelling has a vector for a word outside its vocabulary as well.

    Attributes:
        dim: dimensions of a token's vector in any layer: forward half, then backward half; of a
            forward language model, its own alone.
        depth: layers, the token vectors (layer 0) included.
        content, tokenizer_content: hashes of the model and of the tokenizer it was trained with.
    """

    def __init__(
        self,
        network: BiLMNetwork,
        tokenizer: Tokenizer,
        cleaning: CleaningConfig,
        boundary: Literal["eos", "bos_eos"],
        content: str = "",
        tokenizer_content: str = "",
    ) -> None:
        super().__init__()
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.content, self.tokenizer_content = content, tokenizer_content
        self._cleaner = Cleaner(cleaning)
        self._before, self._after = boundary_ids(boundary)
        self.dim = network.width
        self.depth = network.recurrent.config.layers + 1
        self._spellings: Spellings | None = None
        if isinstance(network.input, CharCNN):
            self._spellings = Spellings(
                tokenizer.spelling, tokenizer.vocabulary, network.input.max_characters
            )

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """The model in a folder or at an fsspec URL.

        Raises:
            ManifestError: it holds no finished model, or one of a newer format.
        """
        path = str(path)
        content = read_manifest(path, "export").content
        network, saved = load_network(path)
        cleaning = CleaningConfig.model_validate(saved["cleaning"])
        tokenizer = load_tokenizer(path)
        return cls(
            network, tokenizer, cleaning, saved["boundary"], content, saved.get("tokenizer", "")
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
        batch, time = ids.shape
        place = torch.arange(time, device=ids.device).expand(batch, time)
        # Reversed within its length; padding stays where it is.
        mirror = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
        starts = torch.tensor([self._before, self._after], device=ids.device)
        streams = torch.stack([ids, ids.gather(1, mirror)])  # (2, batch, time)
        streams = torch.cat([starts[:, None, None].expand(2, batch, 1), streams], 2)
        # (directions, time + 1, batch)
        streams = streams[: self.network.directions].transpose(1, 2)
        state = self.network.zero_state(batch)
        chunks = []
        for start in range(0, time + 1, CHUNK):
            inputs = self._inputs(streams[:, start : start + CHUNK], spellings)
            layers, state = self.network.layers(inputs, state)
            chunks.append(torch.stack(layers))  # (depth, directions, chunk, batch, direction_width)
        read = torch.cat(chunks, 2)[:, :, 1:].transpose(2, 3)
        if self.network.directions == 1:
            return read[:, 0]
        forward, backward = read.unbind(1)
        index = mirror[None, :, :, None].expand_as(backward)  # (depth, batch, time, dim / 2)
        return torch.cat([forward, backward.gather(2, index)], 3)

    def _inputs(self, ids: Tensor, spellings: Spellings | None) -> Tensor | Types:
        spellings = spellings or self._spellings
        if spellings is None:
            return ids
        found = types_of_window(ids.cpu().numpy(), spellings)
        characters = tuple(bucket.to(ids.device) for bucket in found.characters)
        return Types(characters, found.places.to(ids.device))

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], batch_tokens: int = 4096) -> list[Embedding]:
        """The vectors of each text, in order, after the cleaning that training text had.

        Args:
            texts: any texts; one without tokens has vectors (layers, 0, dim).
            batch_tokens: tokens of a batch, padding included; a longer text is a batch of its own.
        """
        cleaned = self._cleaner.clean_batch(list(texts))
        tokens = [tuple(self.tokenizer.tokens(text)) for text in cleaned]
        vectors: dict[int, npt.NDArray[np.float32]] = {}
        device = next(self.network.parameters()).device
        for batch in plan_batches([len(one) for one in tokens], batch_tokens):
            longest = max(len(tokens[number]) for number in batch)
            ids = torch.zeros(len(batch), longest, dtype=torch.int64)
            numbered, spellings = self._numbered([tokens[number] for number in batch])
            for row, found in enumerate(numbered):
                ids[row, : len(found)] = torch.tensor(found, dtype=torch.int64)
            lengths = torch.tensor([len(tokens[number]) for number in batch])
            layers = self(ids.to(device), lengths.to(device), spellings).cpu().numpy()
            for row, number in enumerate(batch):
                vectors[number] = layers[:, row, : len(tokens[number])]
        return [
            Embedding(text, tokens[number], vectors[number]) for number, text in enumerate(cleaned)
        ]

    def _numbered(
        self, texts: Sequence[Sequence[Token]]
    ) -> tuple[list[list[int]], Spellings | None]:
        """Ids of each text; where words are read by their spelling, ids of these texts' own words."""
        if self._spellings is None:
            return [[token.id for token in text] for text in texts], None
        different = dict.fromkeys(token.spelling for text in texts for token in text)
        words = [*CONTROLS, *different]
        number = dict(zip(different, range(len(CONTROLS), len(words)), strict=True))
        spellings = Spellings(words.__getitem__, len(words), self._spellings.max_characters)
        return [[number[token.spelling] for token in text] for text in texts], spellings


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Numbers of texts batch by batch, sorted by length so that little is padding."""
    batches: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda n: (lengths[n], n)):
        if batches and (len(batches[-1]) + 1) * max(1, lengths[number]) <= batch_tokens:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches
