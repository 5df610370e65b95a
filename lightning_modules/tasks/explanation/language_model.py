"""What a language model finds surprising in a text, and what its loss is sensitive to."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from lightning_modules.evaluation.surprise import surprises
from lightning_modules.tasks.explanation.explained import By, Doubles, Explained, Row, shown_units
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import GradientPath
from lightning_modules.vectors.streams import Floats

Scale = Literal["bits", "nats"]

BLOCK = 1 << 14
"""Vectors of a long text that are read from its file at once."""


def explain_surprise(
    model: BiLM,
    texts: Sequence[str],
    places: Sequence[str],
    by: By = "auto",
    scale: Scale = "bits",
    path: GradientPath = "total",
) -> list[Explained]:
    """Return the surprise of each unit in each direction, and its gradient saliency.

    The surprise is -log p, of a word the sum over its tokens. The saliency is the norm of the gradient of
    the text's loss in nats with respect to the token's vector in layer 0; the norms of both directions
    and of the tokens of a word are combined as one vector's.

    Args:
        model: the model, with its output layer.
        texts: the texts.
        places: their places.
        by: what the units are.
        scale: unit of the surprise.
        path: as in `BiLM.embed`; it does not change layer 0.

    Raises:
        UserError: if the model has no output layer.
        VectorError: if a log-probability or a gradient is NaN or infinite.
    """
    read = model.reader.read(texts)
    found = dict(surprises(model, read))
    gradients = model.embed(texts, kind="gradient", path=path, layers=(0,))
    divisor = math.log(2) if scale == "bits" else 1.0
    explained = []
    for number, (place, one) in enumerate(zip(places, read, strict=True)):
        text, units = shown_units([one], by)
        surprise = found[number]
        values = {f"forward_{scale}": surprise.forward / divisor}
        if surprise.backward is not None:
            values[f"backward_{scale}"] = surprise.backward / divisor
        rows = [Row(name, units.sums(of_tokens), False) for name, of_tokens in values.items()]
        squares = _squares(gradients[number].vectors[0])
        rows.append(Row("saliency", np.sqrt(units.sums(squares)), False))
        explained.append(
            Explained(place, _title(one.tokens, rows, scale), text, units.spans, tuple(rows))
        )
    return explained


def _squares(vectors: Floats) -> Doubles:
    """Return the squared norm of each vector, (tokens,), in bounded memory."""
    found = np.empty(len(vectors))
    for start in range(0, len(vectors), BLOCK):
        part = slice(start, start + BLOCK)
        found[part] = np.square(vectors[part].astype(np.float64)).sum(1)
    return found


def _title(tokens: Sequence[object], rows: Sequence[Row], scale: Scale) -> str:
    if not tokens:
        return "no tokens"
    means = ", ".join(
        f"{row.name.partition('_')[0]} {row.values.sum() / len(tokens):.2f}" for row in rows[:-1]
    )
    return f"{scale} per token: {means}"
