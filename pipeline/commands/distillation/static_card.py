"""The model card of a static model."""

from collections.abc import Mapping
from typing import Any

from pipeline.reports.model_card import USE, escape

_UNKNOWN = {
    True: "The unknown token has the mean of its {unknown:,} uses.",
    False: "The unknown token is in none of these texts; it has the mean of the types that are used once, or of "
    "all types that are used.",
}


def static_card(
    saved: Mapping[str, Any], figures: Mapping[str, Any], model: str, biloom: str
) -> str:
    """Return Markdown that says what the vectors are, and what they were made from.

    Args:
        saved: contents of the model's config.json.
        figures: the ``distilled`` details of its manifest.
        model: content hash of the model that it was made from.
        biloom: version of biloom.
    """
    width, layer = saved["model"]["recurrent"]["hidden"], figures["layer"]
    of = "the average of all layers" if layer == "average" else f"layer {layer}"
    lines = [
        "# Static vectors",
        "",
        f"One vector of {width} numbers for each of {saved['vocabulary']:,} tokens of the vocabulary, whatever "
        f"the text around it. Made with biloom {escape(biloom)} from the language model {model[:12]}: the vector "
        f"of a type is the mean of its contextual vectors ({of}) in {figures['tokens']:,} tokens of "
        f"{figures['texts']:,} texts.",
        "",
        f"{figures['occurring']:,} of {figures['types']:,} types are in these texts; the other "
        f"{figures['alone']:,} have the vector of the type as a text of its own. "
        + _UNKNOWN[figures["unknown"] > 0].format(unknown=figures["unknown"]),
        "",
    ]
    if "kept_variance" in figures:
        lines += [
            f"The vectors are the first {width} principal components, which have "
            f"{figures['kept_variance']:.1%} of the variance.",
            "",
        ]
    lines += [f"Vectors are stored as {escape(saved['weights'])}.", "", USE]
    return "\n".join(lines)
