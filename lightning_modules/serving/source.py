"""Where the vectors of served texts come from: a model, a vector cache, or a cache and its model.

Legend of shapes: a text has vectors (layers, units, dim), as in `BiLM.embed`.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.config import MixConfig
from lightning_modules.serving.text_limit import Limit, LongTextError
from lightning_modules.vectors.batches import plan_batches, plan_fixed_batches
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Pooling, Selection, Text, layers_of
from preprocess.errors import UserError
from preprocess.tokenizers.aligned_text import Tokenised
from preprocess.vectors.cache import VectorCache

Floats = npt.NDArray[np.float32]


class AbsentTextError(UserError):
    """Raised for a text that is not in the cache, if there is no model."""


class ChoiceError(UserError):
    """Raised for vectors that the cache does not hold."""


class Choice(NamedTuple):
    """Which vectors a request asks for.

    Attributes:
        selection: the vectors of a text.
        mean: whether they are averaged into one, (layers, 1, dim).
    """

    selection: Selection
    mean: bool = False


class Prepared(NamedTuple):
    """A text before its vectors are computed.

    Attributes:
        text: the text with its tokens; None if ``vectors`` are known.
        vectors: the vectors, if they come from a cache.
        units: number of vectors in each layer.
    """

    text: Tokenised | None
    vectors: Floats | None
    units: int

    @property
    def tokens(self) -> int:
        """Tokens to compute."""
        return 0 if self.text is None else len(self.text.tokens)


class ServedVectors:
    """Finds or computes the vectors of texts. Safe to use from several threads.

    Args:
        model: computes the vectors of texts that are not in the cache; None means that they are refused.
        cache: a vector cache; None means that all vectors are computed.
        fixed_batches: whether a text's vectors are equal to the bit in whatever batch they are computed,
            see `plan_fixed_batches`.

    Attributes:
        model, cache, fixed_batches: the arguments.

    Raises:
        CacheError: the cache was made by another model.
        ChoiceError: the cache holds gradients, or there is neither a model nor a cache.
    """

    def __init__(
        self, model: BiLM | None, cache: VectorCache | None, fixed_batches: bool = False
    ) -> None:
        if model is None and cache is None:
            raise ChoiceError("there is neither a model nor a vector cache to serve")
        self.model, self.cache, self.fixed_batches = model, cache, fixed_batches
        self._words = self._warm_up = False
        self._stored = Selection()
        if cache is not None:
            self._read_settings(cache)

    def _read_settings(self, cache: VectorCache) -> None:
        made = cache.manifest.details.get("vectors")
        if self.model is not None and made is None:
            raise ChoiceError(
                f"{cache.path}: this vector cache does not record how its vectors were made; serve it "
                "without --model"
            )
        made = made or {}
        if made.get("kind", "vector") != "vector":
            raise ChoiceError(
                f"{cache.path}: this vector cache holds gradients, which are not served; make one with "
                "embed.kind=vector"
            )
        self._words, self._warm_up = bool(made.get("words")), bool(made.get("warm_up"))
        layers = made.get("layers", "all")
        self._stored = Selection(
            layers if isinstance(layers, str) else layers_of(layers),  # type: ignore[arg-type]
            cache.unit,  # type: ignore[arg-type]
            made.get("pooling"),
            MixConfig.model_validate(made.get("mix") or {}),
            segmenter=made.get("segmenter"),
        )

    def choose(self, layers: object, unit: str | None, pooling: Pooling | None) -> Choice:
        """Return the choice of vectors of a request.

        Args:
            layers: as in `BiLM.embed`; None means "concat", or the layers of the cache.
            unit: "token", "word", or "sentence" for one vector of the whole text; None means "token", or
                the unit of the cache.
            pooling: as in `BiLM.embed`; None means the default, or that of the cache.

        Raises:
            SelectionError: the model has no such vectors.
            ChoiceError: the cache has no such vectors.
        """
        if self.cache is None:
            assert self.model is not None
            chosen = layers_of("concat" if layers is None else layers)  # type: ignore[arg-type]
            selection = Selection(chosen, unit or "token", pooling)  # type: ignore[arg-type]
            selection.check(self.model.depth)
            return Choice(selection)
        if layers is not None or pooling is not None:
            raise ChoiceError(
                "the vectors come from a cache, whose layers and pooling cannot be changed; leave out "
                "`layers` and `pooling`"
            )
        if unit is None and self.cache.unit == "sentence":
            raise ChoiceError("the cache has one vector for each text; ask `/embed` for it")
        if unit not in (None, "sentence", self.cache.unit):
            raise ChoiceError(
                f"the cache has one vector for each {self.cache.unit}, not for each {unit}"
            )
        return Choice(self._stored, unit == "sentence" != self.cache.unit)

    def values(self, choice: Choice, units: int) -> int:
        """Return how many numbers are sent for so many units of a text."""
        if choice.mean:
            units = min(1, units)
        if self.cache is not None:
            return self.cache.layers * units * self.cache.dim
        assert self.model is not None
        layers, size = choice.selection.shape(self.model.depth, self.model.dim)
        return layers * units * size

    def prepare(
        self, texts: Sequence[Text], choice: Choice, limit: Limit, first: int = 0
    ) -> list[Prepared]:
        """Look up texts in the cache, and tokenise the others.

        Args:
            texts: the texts.
            choice: which vectors.
            limit: limit of each text; ``values`` of all together.
            first: number of the first of ``texts`` in the request.

        Raises:
            AbsentTextError: a text is not in the cache, and there is no model.
            LongTextError: a text has too many tokens and is not to be truncated, or the cached vectors
                have too many values.
            CacheError: the cache is damaged.
        """
        found: dict[int, Prepared] = {}
        values = 0
        if self.cache is not None:
            for number, text in enumerate(texts):
                split = text.split() if self._words and isinstance(text, str) else text
                try:
                    units = self.cache.units_of(split)
                except KeyError:
                    if self.model is None:
                        raise AbsentTextError(
                            f"`inputs[{first + number}]` is not in the vector cache; a text must be sent exactly "
                            "as it was embedded, a list of words as a list"
                        ) from None
                    continue
                values += self.values(choice, units)
                # All units of a text are read before they are averaged.
                if max(values, self.values(Choice(choice.selection), units)) > limit.values:
                    raise LongTextError(
                        f"the cached vectors have more than {limit.values:,} numbers; send fewer or shorter "
                        "texts"
                    )
                vectors = np.asarray(self.cache[split], np.float32)
                found[number] = Prepared(
                    None, averaged(vectors) if choice.mean and units else vectors, units
                )
        others = [number for number in range(len(texts)) if number not in found]
        if others:
            asked = [texts[number] for number in others]
            numbers = [first + number for number in others]
            read = self.read(asked, choice.selection, limit, numbers)
            found.update(zip(others, read, strict=True))
        return [found[number] for number in range(len(texts))]

    def read(
        self, texts: Sequence[Text], selection: Selection, limit: Limit, numbers: Iterable[int]
    ) -> list[Prepared]:
        """Tokenise texts, even if they are in the cache.

        Args:
            texts: the texts.
            selection: which vectors.
            limit: limit of each text.
            numbers: their numbers in the request, for messages.

        Raises:
            LongTextError: a text has too many tokens and is not to be truncated.
        """
        assert self.model is not None
        numbers = list(numbers)
        if self._words:
            texts = [text.split() if isinstance(text, str) else text for text in texts]
        asked = [limit.beginning(text, number) for text, number in zip(texts, numbers, strict=True)]
        prepared = []
        for number, text in zip(
            numbers, self.model.reader.read(asked, selection.segmenter), strict=True
        ):
            text = limit.cut(text, number)
            units = {"token": len(text.tokens), "word": len(text.words)}
            prepared.append(
                Prepared(text, None, units.get(selection.unit, min(1, len(text.tokens))))
            )
        return prepared

    def compute(self, texts: Sequence[Tokenised], choice: Choice, tokens: int) -> list[Floats]:
        """Compute the vectors of texts, in batches of at most ``tokens`` tokens.

        Raises:
            VectorError: the model computes NaN or infinity.
        """
        assert self.model is not None
        lengths = [len(text.tokens) for text in texts]
        if self.fixed_batches:
            batches = plan_fixed_batches(lengths)
        else:
            batches = plan_batches(lengths, tokens, choice.selection.counts_padding)
        embedded = self.model.embed_batches(texts, choice.selection, batches, self._warm_up)
        return [averaged(one.vectors) if choice.mean else one.vectors for one in embedded]


def averaged(vectors: Floats) -> Floats:
    """Return the mean of the vectors of a text.

    Args:
        vectors: (layers, units, dim), at least one unit.

    Returns:
        (layers, 1, dim) float32.
    """
    mean: npt.NDArray[np.float64] = vectors.mean(1, dtype=np.float64, keepdims=True)
    return mean.astype(np.float32)
