"""Keep the lowest recurrent layers. No layer reads those above it, so the vectors stay the same."""

import re

from lightning_modules.models.smaller.parts import Parts
from lightning_modules.models.smaller.request import Names, check_layers

_LAYER = re.compile(r"recurrent\.layers\.(\d+)\.")


def keep_layers(parts: Parts, layers: int, names: Names) -> Parts:
    """Return the model with its lowest recurrent layers only.

    The vectors of the input and of the kept layers are equal to those of the full model, to the bit.

    Args:
        parts: the model; its settings must have no output layer.
        layers: number of layers to keep, at least 1.
        names: names of the settings, for messages.

    Raises:
        SmallerError: as in `check_layers`.
    """
    model = parts.settings.model
    check_layers(model, parts.settings.head, layers, names)
    recurrent = model.recurrent.model_copy(update={"layers": layers})
    weights = {
        name: weight
        for name, weight in parts.weights.items()
        if not (found := _LAYER.match(name)) or int(found[1]) < layers
    }
    kept = parts._replace(weights=weights)
    return kept.with_settings(model=model.model_copy(update={"recurrent": recurrent}))
