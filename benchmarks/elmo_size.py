"""A model of ELMo's size and random text for it, which the benchmarks of a GPU share.

The model has two LSTM layers per direction (4096 hidden, 512 projected), ELMo's character CNN (2,048
filters) and an adaptive softmax over 793,471 words. Training uses 20 unrolled tokens and Adam. The text is
random words with a Zipf distribution and a fixed seed; an id is its rank.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train import draw_ids, spelling, zipf_counts

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.inputs.word_types import types_of_window, word_encoder
from lightning_modules.nn.window import Types, Window, on_device
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.sizes import SpelledTypes
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.datamodule import TokenShardDataModule
from lightning_modules.training.weights.clusters import cutoffs_of
from preprocess.files.manifest import FileRecord, Manifest, hash_file, write_manifest
from preprocess.shards.format import DOCUMENT, shard_counts
from preprocess.shards.stream import Int64Ids
from preprocess.tokenizers.base import CONTROLS
from preprocess.tokenizers.spellings import Spellings
from preprocess.tokenizers.vocabulary import Vocabulary
from preprocess.tokenizers.words import WordTokenizer

UNROLL, WINDOWS = 20, 4
VOCABULARY, SMALL_VOCABULARY = 793_471, 5000
CHARACTERS = 50
DOCUMENT_TOKENS = 25
FILTERS = [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]]
STACKS: dict[str, dict[str, int]] = {
    "lstm": {"hidden": 4096, "projection": 512},
    "gru": {"hidden": 1792},
    "hgrn2": {"hidden": 2176, "expansion": 16},
    "sru": {"hidden": 2048, "layers": 3},
}
"""Stacks of each kind with about as many weights as ELMo's, 38 million per direction."""
SMALL_STACKS: dict[str, dict[str, int]] = {
    "lstm": {"hidden": 64, "projection": 16},
    "gru": {"hidden": 16},
    "hgrn2": {"hidden": 16, "expansion": 8},
    "sru": {"hidden": 16},
}
LETTERS = np.frombuffer(b"etaoinshrdlcumwfgypbvkjxqz", np.uint8)


def vocabulary_of(small: bool) -> int:
    """Return the number of ids."""
    return SMALL_VOCABULARY if small else VOCABULARY


def model_of(small: bool, dropout: float = 0.1, kind: str = "lstm") -> ModelConfig:
    """Return the network, or a small one of the same kind.

    Args:
        small: whether to return the small one.
        dropout: of the input and of the recurrent layers.
        kind: kind of the recurrent layers.
    """
    filters = [[1, 8], [3, 24]] if small else FILTERS
    sizes = (SMALL_STACKS if small else STACKS)[kind]
    stack = {"kind": kind, "dropout": dropout, **sizes}
    characters = {"kind": "char_cnn", "filters": filters, "dropout": dropout}
    head = {"kind": "adaptive_softmax"}
    return ModelConfig.model_validate({"input": characters, "recurrent": stack, "head": head})


def train_of(rows: int, **settings: Any) -> TrainConfig:
    """Return the settings of the training."""
    fixed = {"rows": rows, "unroll": UNROLL, "warmup_steps": 0, "reset_state": 0.0}
    return TrainConfig.model_validate(fixed | settings)


def clusters(rows: int, small: bool, kind: str = "lstm") -> tuple[int, ...]:
    """Return the cutoffs of the adaptive softmax, those of `auto`."""
    return cutoffs_of(model_of(small, kind=kind), train_of(rows), zipf_counts(vocabulary_of(small)))


def windows_of(
    rows: int, vocabulary: int, cutoffs: tuple[int, ...], device: torch.device
) -> list[Window]:
    """Return windows of random words on a device."""
    words = Spellings(spelling, vocabulary, CHARACTERS)
    make = WindowMaker(np.arange(vocabulary), cutoffs, partial(types_of_window, spellings=words))
    shape = (WINDOWS, 2, UNROLL, rows)
    pairs = zip(draw_ids(vocabulary, shape, 1), draw_ids(vocabulary, shape, 2), strict=True)
    return [on_device(make(ids, targets), device) for ids, targets in pairs]


def types_read(window: Window) -> SpelledTypes:
    """Return what the character CNN reads of a window."""
    assert isinstance(window.inputs, Types)
    buckets = window.inputs.characters
    types = sum(len(bucket) for bucket in buckets)
    letters = sum(bucket.numel() for bucket in buckets)
    return SpelledTypes(types / window.targets[0].numel(), letters / types)


@cache
def word_tokenizer(vocabulary: int) -> WordTokenizer:
    """Return a tokenizer of random words of 2 to 12 letters; frequent words are shorter.

    Words must be distinct, so each ends with its rank.
    """
    draw = np.random.default_rng(0)
    ranks = np.arange(vocabulary - len(CONTROLS))
    lengths = np.where(ranks < 2000, 2 + np.sqrt(ranks).astype(np.int64) % 9, 5 + ranks % 8)
    letters = LETTERS[draw.integers(0, len(LETTERS), (len(ranks), lengths.max()))]
    ends = [f"'{rank:x}" for rank in ranks.tolist()]
    words = (
        row[: max(0, length - len(end))].tobytes().decode() + end
        for row, length, end in zip(letters, lengths.tolist(), ends, strict=True)
    )
    return WordTokenizer(Vocabulary.of_words(words))


def random_texts(vocabulary: int, tokens: int) -> list[list[str]]:
    """Return texts of 25 words."""
    spelled = word_tokenizer(vocabulary).spelling
    ids = draw_ids(vocabulary - len(CONTROLS), (tokens // DOCUMENT_TOKENS, DOCUMENT_TOKENS), 3)
    return [[spelled(id_ + len(CONTROLS)) for id_ in row] for row in ids.tolist()]


def make_corpus(folder: Path, vocabulary: int, tokens: int) -> None:
    """Write random text as the prepare stage does, in one shard of documents of 25 tokens."""
    folder.mkdir(parents=True)
    rows = np.zeros(tokens // DOCUMENT_TOKENS, DOCUMENT)
    rows["tokens"] = DOCUMENT_TOKENS
    ids = len(CONTROLS) + draw_ids(vocabulary - len(CONTROLS), (len(rows) * DOCUMENT_TOKENS,), 1)
    ids = ids.astype("<u4" if vocabulary > 1 << 16 else "<u2")
    records = []
    for ending, array in (("bin", ids), ("len", rows["tokens"])):
        path = folder / f"train-000000-000.{ending}"
        path.write_bytes(array.tobytes())
        counts = shard_counts(rows, "train", "random", ids.dtype) if ending == "bin" else {}
        records.append(FileRecord(path.name, *hash_file(str(path)), counts))
    details = {"vocabulary": vocabulary, "sources": [{"name": "random"}]}
    manifest = Manifest("prepare", 1, "0", "f", "c", {}, tuple(records), details)
    write_manifest(str(folder), manifest)


class RandomText(TokenShardDataModule):
    """The batches of a corpus of `make_corpus`, whose tokenizer is in memory."""

    def _encoder(self, network: BiLMNetwork) -> Callable[[Int64Ids], Types]:
        vocabulary = self.corpus.vocabulary
        return word_encoder(word_tokenizer(vocabulary).spelling, vocabulary, CHARACTERS)
