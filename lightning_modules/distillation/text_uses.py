"""The tokens of raw text with their vectors, computed as the text is read."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from lightning_modules.distillation.layer import TeacherLayer
from lightning_modules.distillation.type_sums import Uses
from lightning_modules.vectors.pretrained import BiLM
from preprocess.config import Source
from preprocess.corpus.rejects import RejectsWriter
from preprocess.reading.changed_inputs import ranges_read
from preprocess.reading.reader import read_unit
from preprocess.reading.units import Unit
from preprocess.text.config import CleaningConfig


class TextUses:
    """Iterates over the tokens of each text of some raw files; nothing but windows of texts is in memory.

    A text is counted as often as it is in the files. Records that cannot be read are written to
    ``dropped-*.jsonl``, see `preprocess.corpus.rejects`.

    Args:
        model: the model.
        layer: the layer of the vectors.
        sources: the sources of the files.
        units: the units of the files.
        cleaning: its ``invalid_bytes`` decides whether texts with invalid bytes are dropped. The model
            applies the rest.
        folder: folder or URL of ``dropped-*.jsonl``.
        advance: called with the number of bytes of each text that was read.

    Attributes:
        texts: after iteration, the number of texts.
        dropped: after iteration, the number of dropped records by reason.
        inputs: after iteration, the rows of `preprocess.reading.changed_inputs.ranges_read`.
    """

    def __init__(
        self,
        model: BiLM,
        layer: TeacherLayer,
        sources: Sequence[Source],
        units: Sequence[Unit],
        cleaning: CleaningConfig,
        folder: str,
        advance: Callable[[int], None],
    ) -> None:
        self._model, self._layer, self._sources = model, layer, sources
        self._units, self._cleaning, self._folder, self._advance = units, cleaning, folder, advance
        self.texts = 0
        self.dropped: Counter[str] = Counter()
        self.inputs: list[dict[str, Any]] = []

    def __iter__(self) -> Iterator[Uses]:
        """Yield the tokens of each text, in the order of the files.

        Raises:
            UserError: a file cannot be read.
            VectorError: the model computes NaN or infinity.
        """
        for found in self._model.iter_embed(self._read(), layers=self._layer.selection):
            ids = np.fromiter((token.id for token in found.tokens), np.int64, len(found.tokens))
            yield Uses(ids, found.vectors[0])

    def _read(self) -> Iterator[str]:
        for unit in self._units:
            aside = RejectsWriter(self._folder, unit.index)
            reader = read_unit(unit, self._sources[unit.source], self._cleaning)
            for block in reader:
                for text in block.documents:
                    self.texts += 1
                    self._advance(len(text.encode("utf-8", "surrogatepass")) + 1)
                    yield text
                self.dropped.update(one.reason for one in block.rejected)
                aside.add_rejected(block.rejected)
            aside.flush()
            self.inputs += ranges_read(unit, reader.read_so_far())
