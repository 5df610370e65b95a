"""The vectors that a classifier is trained on, computed with a progress bar."""

import time
from dataclasses import dataclass

from lightning_modules.tasks.classification.config import ClassifyConfig
from lightning_modules.tasks.classification.pooled import (
    ALONE,
    TOGETHER,
    Pooled,
    Source,
    pooled_sides,
    pooled_texts,
)
from lightning_modules.tasks.features import Features, features_of
from lightning_modules.tasks.vector_source import VectorSource
from lightning_modules.vectors.selection import Unit
from pipeline.commands.tasks.classification.data import ClassifyError, Data, Side
from pipeline.console import Bar, Console
from pipeline.training.device import resolve_device

Sides = tuple[Features, ...]
"""The vectors of texts, and of the second texts of pairs."""


@dataclass(frozen=True)
class Vectors:
    """The vectors of train and dev.

    Attributes:
        train, dev: one vector for each text and layer.
        train_units, dev_units: the vectors of all units; empty if no network reads them.
    """

    train: Pooled
    dev: Pooled
    train_units: Sides = ()
    dev_units: Sides = ()


def source_of(opened: VectorSource, config: ClassifyConfig) -> Source:
    """Return where the vectors of a training come from.

    Raises:
        ClassifyError: the cache does not have the vectors that a prediction computes, or a network cannot
            read them.
    """
    model, cache = opened.model, opened.cache
    if model is not None:
        model.to(resolve_device(config.device))
    elif config.finetune:
        raise ClassifyError(
            "finetune=true trains the language model, but only a vector cache was given; give the folder "
            "of the model with --model"
        )
    if cache is None:
        return Source(model, None, config.unit or "token", config.pooling)
    made = cache.manifest.details["vectors"]
    if made["layers"] != "all":
        raise ClassifyError(
            f"{cache.path}: this vector cache has not all layers (embed.layers={made['layers']}); make one "
            "with embed.layers=all"
        )
    if made["warm_up"]:
        raise ClassifyError(
            f"{cache.path}: this vector cache was made with embed.warm_up=true, but predictions read a "
            "text from the zero state; make one with embed.warm_up=false"
        )
    unit: Unit = config.unit or cache.unit  # type: ignore[assignment]
    if unit == "sentence" and config.head != "pool":
        raise ClassifyError(
            f"{cache.path}: this vector cache has one vector for each text, but head={config.head} reads "
            "those of tokens or words; make one with embed.unit=token, or set head=pool"
        )
    return Source(model, cache, unit, config.pooling, made["pooling"])


def vectors_of(data: Data, source: Source, keep_units: bool, console: Console) -> Vectors:
    """Compute the vectors of train and dev, and print how fast.

    Those of dev are computed text by text, as a prediction computes them.

    Args:
        data: the examples.
        source: where vectors come from.
        keep_units: also return the vectors of all units.
        console: where progress is shown.

    Raises:
        FeatureError, CacheError, ScratchError, VectorError: as `features_of`.
    """
    texts = sum(len(side.examples) * len(side.sides) for side in (data.train, data.dev))
    start = time.monotonic()
    with console.bar("vectors", texts) as bar:
        meter = _Meter(bar)
        train, train_units = _of_side(source, data.train, TOGETHER, keep_units, meter)
        units, seconds = meter.units, max(time.monotonic() - start, 1e-9)
        dev, dev_units = _of_side(source, data.dev, ALONE, keep_units, meter)
    unit = "text" if source.unit == "sentence" else source.unit
    console.line(
        f"vectors of {meter.units:,} {unit}s, {units / seconds:,.0f} {unit}s/s in training texts"
    )
    return Vectors(train, dev, train_units, dev_units)


def _of_side(
    source: Source, side: Side, batch_tokens: int, keep_units: bool, meter: "_Meter"
) -> tuple[Pooled, Sides]:
    if not keep_units:
        pooled = [pooled_texts(source, texts, batch_tokens, meter) for texts in side.sides]
        return pooled_sides(source, pooled), ()
    found = []
    for texts in side.sides:
        first = meter.texts
        features = features_of(
            source.model,
            source.cache,
            texts,
            source.unit,
            meter.bar_from(first),
            batch_tokens=batch_tokens,
        )
        meter(len(texts), int(features.lengths.sum()))
        found.append(features)
    return pooled_sides(source, found), tuple(found)


class _Meter:
    """Counts texts and units for a bar."""

    def __init__(self, bar: Bar, first: int = 0) -> None:
        self._bar, self.texts, self.units = bar, first, 0

    def __call__(self, texts: int, units: int) -> None:
        self.texts += texts
        self.units += units
        self._bar.update(self.texts)

    def bar_from(self, first: int) -> "_Later":
        """Return a bar whose 0 is at ``first`` texts."""
        return _Later(self._bar, first)


class _Later:
    """A bar that begins at a number."""

    def __init__(self, bar: Bar, first: int) -> None:
        self._bar, self._first = bar, first

    def update(self, done: float, note: str = "") -> None:
        self._bar.update(self._first + done, note)
