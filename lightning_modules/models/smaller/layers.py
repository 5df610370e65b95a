"""Keep the lowest recurrent layers. No layer reads those above it, so the vectors stay the same."""

import re

from lightning_modules.models.smaller.parts import Names, Parts, SmallerError

_LAYER = re.compile(r"recurrent\.layers\.(\d+)\.")


def keep_layers(parts: Parts, layers: int, names: Names) -> Parts:
    """Return the model with its lowest recurrent layers only.

    The vectors of the input and of the kept layers are equal to those of the full model, to the bit.

    Args:
        parts: the model; its settings must have no output layer.
        layers: number of layers to keep, at least 1.
        names: names of the settings, for messages.

    Raises:
        SmallerError: the model does not have more layers, or keeps its output layer, which reads the
            top layer.
    """
    settings = parts.settings
    model, present = settings.model, settings.model.recurrent.layers
    if not 1 <= layers < present:
        possible = f"choose 1 to {present - 1}" if present > 2 else "choose 1"
        possible = possible if present > 1 else f"none can be dropped, leave {names.layers} out"
        raise SmallerError(
            f"{names.layers}: {layers} layers are to be kept, but the model has {present} recurrent "
            f"{'layer' if present == 1 else 'layers'}; {possible}"
        )
    if settings.head:
        raise SmallerError(
            f"{names.layers}: the output layer reads the top layer, which is dropped; {names.no_head}"
        )
    recurrent = model.recurrent.model_copy(update={"layers": layers})
    weights = {
        name: weight
        for name, weight in parts.weights.items()
        if not (found := _LAYER.match(name)) or int(found[1]) < layers
    }
    kept = parts._replace(weights=weights)
    return kept.with_settings(model=model.model_copy(update={"recurrent": recurrent}))
