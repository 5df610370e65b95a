"""The outputs of a task as a function of the input vectors of a text."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_modules.config import DEFAULT_POOLING
from lightning_modules.tasks.features import Padded
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Pooling, Text, Unit
from lightning_modules.vectors.text_batch import pool_spans

Outputs = Callable[[Sequence[Padded]], Tensor]
"""From the vectors of a batch of texts, and of the second texts of pairs, to outputs (batch, k)."""


class TaskInputs:
    """A text, or a pair of texts, and the outputs of a task for it and for changes of its input vectors.

    The recurrent layers of the language model and the head are computed again for each change, so a
    change of one token reaches the vectors of the others.

    Args:
        model: the language model.
        texts: the text, or both texts of a pair.
        unit: what the head reads a vector of.
        head: the head of the task; it is differentiable.
        pooling: how the vectors of the tokens of a unit are combined; None means as in `BiLM.embed`.

    Attributes:
        vectors: the vectors of layer 0 of all tokens, of the second text after those of the first,
            (tokens, direction_width).
    """

    def __init__(
        self,
        model: BiLM,
        texts: Sequence[Text],
        unit: Unit,
        head: Outputs,
        pooling: Pooling | None = None,
    ) -> None:
        self._model, self._head = model, head
        self._pooling = pooling or DEFAULT_POOLING[unit]
        device = next(model.parameters()).device
        self._batches = [model.batch([text], unit).to(device) for text in texts]
        self.texts = [batch.texts[0] for batch in self._batches]
        with torch.no_grad():
            self.vectors = torch.cat(
                [
                    model.input_vectors(batch.ids, batch.spellings)[0, : len(text.tokens)]
                    for batch, text in zip(self._batches, self.texts, strict=True)
                ]
            )

    def outputs(self, vectors: Tensor) -> Tensor:
        """Return the outputs, (batch, k), for input vectors (batch, tokens, direction_width)."""
        rows = len(vectors)
        read = []
        parts = vectors.split([len(text.tokens) for text in self.texts], 1)
        for batch, part in zip(self._batches, parts, strict=True):
            if not part.shape[1]:
                part = part.new_zeros(
                    rows, 1, part.shape[2]
                )  # the padding of a text without tokens
            layers = self._model.encoder.layers_of_inputs(part, batch.lengths.expand(rows))
            first, last, mask = (
                one.expand(rows, -1) for one in (batch.first, batch.last, batch.mask)
            )
            directions = self._model.network.reading_directions
            units = pool_spans(layers, first, last, mask, self._pooling, directions)
            read.append(Padded(units, batch.units.expand(rows)))
        return self._head(read)
