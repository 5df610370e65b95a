"""Texts as the input arrays of an exported network."""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.portable.inputs import pad_of
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Text
from lightning_modules.vectors.text_batch import TextBatch

Feeds = dict[str, npt.NDArray[Any]]
"""Input arrays by name."""


def feeds_of(model: BiLM, texts: Sequence[Text]) -> Feeds:
    """Return texts as the inputs of a network for whole texts.

    Args:
        model: the model that the network was exported from.
        texts: strings, or lists of words.

    Returns:
        ids, lengths and, for a model that reads words by their spelling, characters; all int64. See
        `lightning_modules.portable.network.TextNetwork.forward`.
    """
    return feeds_of_batch(model, model.batch(texts, "token"))


def feeds_of_batch(model: BiLM, batch: TextBatch) -> Feeds:
    """Return a batch of `BiLM.batch` as `feeds_of` does."""
    feeds: Feeds = {"ids": batch.ids.numpy(), "lengths": batch.lengths.numpy()}
    read = model.encoder.inputs(batch.ids[None], batch.spellings)
    if isinstance(read, Tensor):
        return feeds
    assert isinstance(model.network.input, CharCNN)
    pad = pad_of(model.network.input)
    columns = read.characters[-1].shape[1]  # the last bucket is the widest
    rows = [F.pad(bucket, (0, columns - bucket.shape[1]), value=pad) for bucket in read.characters]
    return {**feeds, "ids": read.positions[0].numpy(), "characters": torch.cat(rows).numpy()}
