"""The layer of a model whose vectors are averaged, from all layers or from what a cache has stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from lightning_modules.distillation.errors import DistillationError
from lightning_modules.distillation.type_sums import Floats
from lightning_modules.vectors.selection import Layers

AVERAGE, TOP = "average", "top"


@dataclass(frozen=True)
class TeacherLayer:
    """A layer of a model, or the average of its layers.

    Attributes:
        number: the layer, 0 for the input of the recurrent layers; None for the average of all layers.
        depth: number of layers of the model.
    """

    number: int | None
    depth: int

    @classmethod
    def parse(cls, written: str, depth: int) -> Self:
        """Return the layer that is written as "average", "top" or a number; -1 is the top layer.

        Raises:
            DistillationError: the model has no such layer.
        """
        if written == AVERAGE:
            return cls(None, depth)
        if written == TOP:
            return cls(depth - 1, depth)
        try:
            number = int(written)
        except ValueError:
            number = depth
        if not -depth <= number < depth:
            raise DistillationError(
                f"--layers: '{written:.40}' is no layer of this model; write average, top, or a number from "
                f"0 (the input) to {depth - 1}"
            )
        return cls(number % depth, depth)

    @property
    def name(self) -> str:
        """The number of the layer, or "average"."""
        return AVERAGE if self.number is None else str(self.number)

    @property
    def selection(self) -> Layers:
        """The layer as a setting of `BiLM.embed`."""
        return "mean" if self.number is None else (self.number,)

    def of_all(self, layers: Floats) -> Floats:
        """Return the layer, (tokens, dim), of all layers, (depth, tokens, dim)."""
        found: Floats = layers.mean(0) if self.number is None else layers[self.number]
        return found

    def place_in(self, path: str, made: Mapping[str, Any]) -> int | None:
        """Return which of a cache's layers this layer is; None if it is `of_all` of them.

        Args:
            path: the cache, for the message.
            made: the settings that the cache was made with.

        Raises:
            DistillationError: the cache does not have the layer.
        """
        stored = made.get("layers")
        if stored == "all":
            return self.number
        if stored == "mean" and self.number is None:
            return 0
        if stored == "top" and self.number == self.depth - 1:
            return 0
        if isinstance(stored, list) and self.number is not None:
            numbers = [layer % self.depth for layer in stored]
            if self.number in numbers:
                return numbers.index(self.number)
        wanted = "the average of all layers" if self.number is None else f"layer {self.number}"
        raise DistillationError(
            f"{path}: this vector cache has embed.layers={stored}, which does not contain {wanted}; choose "
            "another layer with --layers, or make a cache with embed.layers=all"
        )
