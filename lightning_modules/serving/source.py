"""Where the vectors of served texts come from: a model, a vector cache, or a cache and its model.

Legend of shapes: a text has vectors (layers, units, dim), as in `BiLM.embed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.config import MixConfig
from lightning_modules.vectors.batches import plan_batches, plan_fixed_batches
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Pooling, Selection, Text, layers_of
from preprocess.errors import UserError
from preprocess.tokenizers.aligned_text import Tokenised
from preprocess.vectors.cache import VectorCache

Floats = npt.NDArray[np.float32]


class AbsentTextError(UserError):
    """Raised for a text that is not in the cache, if there is no model."""


class LongTextError(UserError):
    """Raised for a text of more tokens, or cached vectors of more numbers, than allowed."""


class ChoiceError(UserError):
    """Raised for vectors that the cache does not hold."""


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


@dataclass(frozen=True)
class Limit:
    """Limit of the length of a text.

    Attributes:
        tokens: largest number of tokens.
        truncate: whether to cut a longer text, instead of refusing it.
        values: largest number of values that are read from the cache; None means no limit.
    """

    tokens: int
    truncate: bool = False
    values: int | None = None


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

    def choose(self, layers: object, unit: str, pooling: Pooling | None) -> Selection:
        """Return the choice of vectors of a request.

        Args:
            layers: as in `BiLM.embed`; None means "concat", or the layers of the cache.
            unit: "token", "word", or "sentence" for one vector of the whole text.
            pooling: as in `BiLM.embed`; None means the default, or that of the cache.

        Raises:
            SelectionError: the model has no such vectors.
            ChoiceError: the cache has no such vectors.
        """
        if self.cache is None:
            assert self.model is not None
            chosen = layers_of("concat" if layers is None else layers)  # type: ignore[arg-type]
            selection = Selection(chosen, unit, pooling)  # type: ignore[arg-type]
            selection.check(self.model.depth)
            return selection
        if layers is not None or pooling is not None:
            raise ChoiceError(
                "the vectors come from a cache, whose layers and pooling cannot be changed; leave out "
                "`layers` and `pooling`"
            )
        if unit not in ("sentence", self.cache.unit):
            raise ChoiceError(
                f"the cache has one vector for each {self.cache.unit}, not for each {unit}"
            )
        return self._stored

    def values(self, selection: Selection, units: int) -> int:
        """Return how many numbers the vectors of so many units have."""
        if self.cache is not None:
            return self.cache.layers * units * self.cache.dim
        assert self.model is not None
        layers, size = selection.shape(self.model.depth, self.model.dim)
        return layers * units * size

    def prepare(self, texts: Sequence[Text], selection: Selection, limit: Limit) -> list[Prepared]:
        """Look up texts in the cache, and tokenise the others.

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
                            f"`inputs[{number}]` is not in the vector cache; a text must be sent exactly "
                            "as it was embedded, a list of words as a list"
                        ) from None
                    continue
                values += self.values(selection, units)
                if limit.values is not None and values > limit.values:
                    raise LongTextError(
                        f"the cached vectors have more than {limit.values:,} numbers; send fewer or shorter "
                        "texts"
                    )
                found[number] = Prepared(None, np.asarray(self.cache[split], np.float32), units)
        others = [number for number in range(len(texts)) if number not in found]
        if others:
            found.update(zip(others, self._read(texts, others, selection, limit), strict=True))
        return [found[number] for number in range(len(texts))]

    def _read(
        self, texts: Sequence[Text], numbers: Sequence[int], selection: Selection, limit: Limit
    ) -> list[Prepared]:
        assert self.model is not None
        asked = [texts[number] for number in numbers]
        if self._words:
            asked = [text.split() if isinstance(text, str) else text for text in asked]
        read = self.model.reader.read(asked, selection.segmenter)
        prepared = []
        for number, text in zip(numbers, read, strict=True):
            if len(text.tokens) > limit.tokens:
                if not limit.truncate:
                    raise LongTextError(
                        f"`inputs[{number}]` has {len(text.tokens):,} tokens, but at most "
                        f"{limit.tokens:,} are allowed; shorten it, or set `truncate`"
                    )
                text = truncated(text, limit.tokens)
            units = {"token": len(text.tokens), "word": len(text.words)}
            prepared.append(
                Prepared(text, None, units.get(selection.unit, min(1, len(text.tokens))))
            )
        return prepared

    def compute(
        self, texts: Sequence[Tokenised], selection: Selection, tokens: int
    ) -> list[Floats]:
        """Compute the vectors of texts, in batches of at most ``tokens`` tokens.

        Raises:
            VectorError: the model computes NaN or infinity.
        """
        assert self.model is not None
        lengths = [len(text.tokens) for text in texts]
        if self.fixed_batches:
            batches = plan_fixed_batches(lengths)
        else:
            batches = plan_batches(lengths, tokens, selection.counts_padding)
        embedded = self.model.embed_batches(texts, selection, batches, self._warm_up)
        return [one.vectors for one in embedded]


def truncated(text: Tokenised, tokens: int) -> Tokenised:
    """Return the first tokens of a text, and the words that they are part of."""
    kept = text.tokens[:tokens]
    end = kept[-1].end
    words = tuple(word for word in text.words if word.start < end)
    return replace(text, text=text.text[:end], tokens=kept, words=words)
