"""Where the vectors of a distillation come from: vector caches, or text that is embedded as it is read."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from lightning_modules.distillation.cache_uses import cache_uses, check_cache
from lightning_modules.distillation.errors import DistillationError
from lightning_modules.distillation.layer import TeacherLayer
from lightning_modules.distillation.text_uses import TextUses
from lightning_modules.distillation.type_sums import Uses
from lightning_modules.vectors.pretrained import BiLM
from pipeline.console import Console
from pipeline.lifecycle.inputs import Inputs, list_inputs
from preprocess.config import sources_of
from preprocess.corpus.rejects import PREFIX, side_files
from preprocess.files import storage
from preprocess.files.manifest import hash_file
from preprocess.reading.changed_inputs import warnings_of
from preprocess.reading.kinds.missing_text import why_no_text
from preprocess.reading.units import plan_units
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.sample import unit_bytes
from preprocess.vectors.cache import VectorCache

REPEATED = "in_several_caches"
"""Reason why a text of a cache is left out, in the manifest."""
OTHER_FIELD = (
    "--input reads the field 'text' only; make a vector cache with `biloom embed`, which takes "
    "text_field in embed.input, and name it with --cache in place of --input"
)
"""What to do about records whose text is in another field."""
UNIT_BYTES = 1 << 20
"""Size of the parts in which text is read, in bytes."""


class UseSource(ABC):
    """Texts whose tokens have vectors.

    Attributes:
        asked: what the manifest records of the texts.
        total: amount of work, in the unit of `uses`'s ``advance``.
        texts: number of texts that `uses` has yielded.
    """

    asked: dict[str, Any]
    total: int
    texts = 0

    @abstractmethod
    def uses(self, advance: Callable[[int], None]) -> Iterator[Uses]:
        """Yield the tokens of each text; ``advance`` is called with the work that was done."""

    def finish(self, console: Console) -> dict[str, Any]:
        """Tell what was found in the texts, and return it for the manifest.

        Raises:
            DistillationError: there is no text, or the texts changed while they were read.
        """
        return {}


class CacheSource(UseSource):
    """The vector caches of a model.

    They are read in the order of their content, so that the order in which they are named does not matter.
    A text that several of them have counts once, with the vectors of the first.

    Args:
        caches: the open caches.
        model: the model.
        layer: the layer of the vectors.

    Raises:
        DistillationError: as in `check_cache`, or a cache is named twice.
    """

    def __init__(self, caches: Sequence[VectorCache], model: BiLM, layer: TeacherLayer) -> None:
        self._model, self._layer = model, layer
        self._caches = sorted(caches, key=lambda cache: cache.manifest.content)
        for cache in self._caches:
            check_cache(cache, model, layer)
        contents = [cache.manifest.content for cache in self._caches]
        for one, content in zip(self._caches[1:], contents, strict=False):
            if one.manifest.content == content:
                raise DistillationError(
                    f"{one.path}: this vector cache is named twice, or is a copy of another one, so that its "
                    "texts would be counted twice; name each cache once"
                )
        self.asked = {"caches": contents}
        self.total = sum(map(len, self._caches))

    def uses(self, advance: Callable[[int], None]) -> Iterator[Uses]:
        for number, cache in enumerate(self._caches):
            before, earlier = self.texts, self._caches[:number]
            for uses in cache_uses(cache, self._model, self._layer, earlier):
                yield uses
                self.texts += 1
                advance(1)
            advance(before + len(cache) - self.texts)

    def finish(self, console: Console) -> dict[str, Any]:
        repeated = self.total - self.texts
        if not repeated:
            return {}
        console.line(
            f"texts that several caches have: {repeated:,} of {self.total:,} are left out, so that each counts "
            "once"
        )
        return {"read": self.total, "dropped": {REPEATED: repeated}}


class TextSource(UseSource):
    """Raw text, which is embedded as it is read.

    Dropped records are written beside the model. They are not listed in its manifest, because they have
    excerpts of the text, which must not go with the model to a hub.

    Args:
        inputs: the files.
        model: the model.
        layer: the layer of the vectors.
        cleaning: the cleaning of the model.
        folder: folder or URL for dropped records.
    """

    def __init__(
        self,
        inputs: Inputs,
        model: BiLM,
        layer: TeacherLayer,
        cleaning: CleaningConfig,
        folder: str,
    ) -> None:
        self._inputs, self._folder = inputs, folder
        self._model, self._layer, self._cleaning = model, layer, cleaning
        self._files = [file for files in inputs.files for file in files]
        self._units = plan_units(inputs.sources, inputs.files, UNIT_BYTES)
        self._found: TextUses | None = None
        self.asked = {"input": self._contents()}
        self.total = sum(map(unit_bytes, self._units))

    @classmethod
    def of(
        cls,
        paths: tuple[str, ...],
        model: BiLM,
        layer: TeacherLayer,
        cleaning: CleaningConfig,
        folder: str,
        console: Console,
    ) -> Self:
        """Return the texts of paths, folders, globs or URLs."""
        return cls(list_inputs(sources_of(paths), console), model, layer, cleaning, folder)

    def _contents(self) -> list[list[Any]]:
        return [[file.name, *hash_file(file.path)] for file in self._files]

    def uses(self, advance: Callable[[int], None]) -> Iterator[Uses]:
        # A killed command may have left files of another request.
        for name in side_files(self._folder):
            storage.remove(storage.join(self._folder, name))
        self._found = TextUses(
            *(self._model, self._layer, self._inputs.sources, self._units),
            *(self._cleaning, self._folder, advance),
        )
        yield from self._found
        self.texts = self._found.texts

    def finish(self, console: Console) -> dict[str, Any]:
        found = self._found
        assert found is not None
        if self._contents() != self.asked["input"]:
            raise DistillationError(
                "a file of --input changed while it was read; run the command again when no other program "
                "writes to it"
            )
        for warning in warnings_of(found.inputs):
            console.warn(warning)
        if not found.texts:
            why = why_no_text(self._units, self._inputs.sources, OTHER_FIELD)
            raise DistillationError(f"no text to embed; check --input{why}")
        if found.dropped:
            reasons = ", ".join(
                f"{number:,} {why}" for why, number in sorted(found.dropped.items())
            )
            console.warn(f"records without vectors, see {PREFIX}*.jsonl: {reasons}")
        read = found.texts + found.dropped.total()
        return {"read": read, "dropped": dict(sorted(found.dropped.items()))}
