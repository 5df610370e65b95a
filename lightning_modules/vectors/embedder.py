"""Contextual vectors as a layer of somebody's own network."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from lightning_modules.nn.scalar_mix import ScalarMix, mix_layers, normalize_layers
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Pooling, Selection, SelectionError, Text, Unit
from lightning_modules.vectors.text_batch import BatchError, TextBatch
from preprocess.errors import UserError


class OtherModelError(UserError):
    """Raised if a state dict was saved with another language model."""


class Embedded(NamedTuple):
    """The vectors of a batch.

    Attributes:
        vectors: one tensor (batch, units, dim) for each mix, 0 past the last unit of a text.
        mask: True at the units of a text, bool (batch, units).
    """

    vectors: tuple[Tensor, ...]
    mask: Tensor


class BiLMEmbedder(nn.Module):
    """A layer that maps texts to padded contextual vectors, with trainable weights of the layers.

    Each mix is gamma * sum_l softmax(weights)_l h_l (Peters et al. 2018, equation 1). With several
    mixes, a network can use one at its input and another at its output, as ELMo's authors did.

    A frozen language model (``trainable=False``) computes without gradients and without dropout,
    whatever the mode of the module and of its parents, and is not affected by autocast. It moves with
    the module (`to`, `cuda`, `bfloat16`), but its weights are neither in `parameters` nor in
    `state_dict`: a checkpoint holds the mixes and the hash of the language model, which is checked
    when the state is loaded. With ``trainable=True`` the language model is an ordinary submodule.

    Example:
        >>> embedder = BiLMEmbedder(BiLM.from_pretrained("runs/base/export"), dropout=0.5)
        >>> (vectors,), mask = embedder(["A first text.", "A second."])
        >>> vectors.shape, mask.shape  # (batch, words, dim), (batch, words)

    Args:
        model: the language model, or the path of its folder as in `BiLM.from_pretrained`.
        mixes: number of mixes.
        unit: what has a vector: each "token", each "word" or the whole text ("sentence").
        pooling: how the vectors of several tokens become the vector of a word or a text, as in
            `BiLM.embed`.
        dropout: probability of dropout on the vectors.
        layer_norm: whether to normalise each layer of a text before it is mixed.
        trainable: whether the language model is trained, too. Its output layer, on which no vector
            depends, is then set not to need gradients, because DDP refuses weights that get none.
        normalize: whether to scale each vector to length 1, before the dropout.
        gamma: initial factor of each mix.
        segmenter: finds the words of text without spaces between them, as in `BiLM.embed`.

    Attributes:
        dim: size of a vector.
        mixes: the mixes, an `nn.ModuleList` of `ScalarMix`.
        trainable: the argument.

    Raises:
        SelectionError: if ``unit`` or ``pooling`` is unknown, or ``mixes`` is below 1.
        SegmenterError: if the segmenter is unknown or not installed.
        UserError: if the model folder cannot be loaded.
    """

    def __init__(
        self,
        model: BiLM | str | Path,
        mixes: int = 1,
        *,
        unit: Unit = "word",
        pooling: Pooling | None = None,
        dropout: float = 0.0,
        layer_norm: bool = False,
        trainable: bool = False,
        normalize: bool = False,
        gamma: float = 1.0,
        segmenter: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(model, str | Path):
            model = BiLM.from_pretrained(model)
        if mixes < 1:
            raise SelectionError(f"mixes: {mixes} is too small; write 1 or more")
        Selection("all", unit, pooling, segmenter=segmenter).check(model.depth)
        self._unit, self._pooling, self._segmenter = unit, pooling, segmenter
        self._layer_norm, self._normalize = layer_norm, normalize
        self.trainable, self.dim = trainable, model.dim
        self.mixes = nn.ModuleList(
            ScalarMix(model.depth, "text" if layer_norm else None, gamma=gamma)
            for _ in range(mixes)
        )
        self.dropout = nn.Dropout(dropout)
        # A module in a tuple is not registered: parents do not change its mode or save its weights.
        self._frozen: tuple[BiLM, ...] = () if trainable else (model,)
        if trainable:
            self.trained_model = model
            if not getattr(model.network.input, "is_tied", False):
                model.network.head.requires_grad_(False)

    @property
    def model(self) -> BiLM:
        """The language model."""
        return self._frozen[0] if self._frozen else self.trained_model

    def batch(self, texts: Sequence[Text]) -> TextBatch:
        """Return texts as tensors on the CPU, for example in the ``collate_fn`` of a `DataLoader`."""
        return self.model.batch(texts, self._unit, self._segmenter)

    def forward(self, texts: Sequence[Text] | TextBatch, inputs: Tensor | None = None) -> Embedded:
        """Return the vectors of texts, on the device of the language model.

        Args:
            texts: strings, lists of words, or what `batch` returned.
            inputs: vectors of tokens that replace the output of the input encoder, (batch, time,
                direction_width), as `BiLM.input_vectors` returns them. The result has gradients with
                respect to them, also if the language model is frozen.

        Returns:
            The vectors, in the dtype of the mixes, and the mask of the units.

        Raises:
            TypeError: if ``texts`` is one string, or a text is neither a string nor a list of words.
            BatchError: if a batch was made by a model with other ids, or for another unit.
            VectorError: if a frozen model computes NaN or infinity.
        """
        embed = self._embed
        # As in BiLM.forward: nothing here gains from being traced, and texts cannot be.
        if torch.compiler.is_compiling():
            embed = torch.compiler.disable(embed)
        return embed(texts, inputs)

    def _embed(self, texts: Sequence[Text] | TextBatch, inputs: Tensor | None) -> Embedded:
        model = self.model
        batch = texts if isinstance(texts, TextBatch) else self.batch(texts)
        self._check(batch)
        batch = batch.to(next(model.parameters()).device)
        layers = self._layers(batch, inputs)  # (depth, batch, time, dim)
        layers = layers.to(next(self.mixes.parameters()).dtype)
        if self._layer_norm:
            layers = normalize_layers(layers, batch.lengths)
        # A mix is linear, so mixing after pooling gives the same vectors with less work.
        units = batch.pool(layers, self._pooling, model.network.reading_directions)
        vectors = []
        for mix in self.mixes:
            assert isinstance(mix, ScalarMix)
            mixed = mix_layers(units, mix.weights, mix.gamma)  # (batch, units, dim)
            if self._normalize:
                mixed = nn.functional.normalize(mixed, dim=-1)
            vectors.append(self.dropout(mixed))
        return Embedded(tuple(vectors), batch.mask)

    def _check(self, batch: TextBatch) -> None:
        self.model.check_batch(batch)
        if batch.unit != self._unit:
            raise BatchError(
                f"the batch has one vector for each {batch.unit}, but the embedder for each {self._unit}; "
                "make the batch with the embedder's `batch` method, or the embedder with "
                f"unit={batch.unit!r}"
            )

    def _layers(self, batch: TextBatch, inputs: Tensor | None) -> Tensor:
        model = self.model
        if not self._frozen:
            return cast("Tensor", model(batch.ids, batch.lengths, batch.spellings, inputs))
        if inputs is not None:
            return model.encoder.layers_of_inputs(inputs, batch.lengths)
        return model.encoder.frozen_layers(batch.ids, batch.lengths, batch.spellings)

    def get_extra_state(self) -> Tensor:
        """Return the hash of a frozen language model for the state dict, uint8; of a trained one, none.

        Not a buffer, because averages of weights (SWA, EMA) also average buffers.
        """
        content = list(self.model.content.encode()) if self._frozen else []
        return torch.tensor(content, dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Check the hash of a state dict that is loaded.

        Raises:
            OtherModelError: it is that of another language model.
        """
        own = self.get_extra_state()
        if self._frozen and state.tolist() != own.tolist():
            saved, has = (bytes(one.tolist()).decode()[:12] or "unknown" for one in (state, own))
            raise OtherModelError(
                f"the state was saved with the language model {saved}, but the embedder has {has}; build the "
                "embedder with the model folder that it was trained with"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply a function to all tensors, as nn.Module does in `to`, `cuda`, `half` and others."""
        for model in self._frozen:
            model._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self
