"""Make a model smaller in all requested ways."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.models.model_settings import ModelSettings
from lightning_modules.models.smaller.changes import Changes
from lightning_modules.models.smaller.layers import keep_layers
from lightning_modules.models.smaller.low_rank import lower_rank
from lightning_modules.models.smaller.parts import HEAD, Parts
from lightning_modules.models.smaller.request import Reduction
from lightning_modules.models.smaller.vocabulary import keep_first_ids
from lightning_modules.sizes import parameter_count


class Reduced(NamedTuple):
    """A smaller model, and how it differs from the one that it was made from."""

    parts: Parts
    changes: Changes


def reduce_model(
    parts: Parts, reduction: Reduction, counts: npt.NDArray[np.uint64] | None = None
) -> Reduced:
    """Make a model smaller: first its vocabulary, then the rank of its input, then its layers.

    Args:
        parts: the model, in which nothing is changed.
        reduction: what to make smaller.
        counts: tokens of each id in the training corpus, (vocabulary,), which decide no weight; None
            if they are not at hand.

    Raises:
        SmallerError: the model cannot be made smaller in this way.
    """
    given, before, changes = parts, parts.settings, dict[str, Any]()
    if reduction.vocabulary is not None:
        parts = keep_first_ids(parts, reduction.vocabulary, reduction.names)
        changes["vocabulary"] = before.vocabulary, reduction.vocabulary
        if counts is not None:
            dropped, every = counts[reduction.vocabulary :].sum(), max(1, counts.sum())
            changes["unknown_share"] = float(dropped) / float(every)
    if reduction.input_rank is not None:
        config = before.model.input
        width = before.model.recurrent.direction_width
        dim = getattr(config, "word_dim", None) or getattr(config, "dim", None) or width
        parts, changes["input_error"] = lower_rank(parts, reduction.input_rank, reduction.names)
        changes["input_rank"] = min(dim, width), reduction.input_rank
    if reduction.layers is not None:
        parts = keep_layers(parts, reduction.layers, reduction.names)
        changes["layers"] = before.model.recurrent.layers, reduction.layers
    if not parts.settings.head:
        kept = {name: w for name, w in parts.weights.items() if not name.startswith(HEAD)}
        parts = parts._replace(weights=kept)
    had_head = any(name.startswith(HEAD) for name in given.weights)
    numbers = (
        parameter_count(before.model, before.vocabulary, before.cutoffs, had_head),
        parts.settings.parameters,
    )
    return Reduced(parts, Changes(parameters=numbers, **changes))


def changed_settings(before: ModelSettings, after: ModelSettings) -> dict[str, Any]:
    """Return the entries of config.json that differ between two settings."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    return {key: value for key, value in new.items() if value != old[key]}
