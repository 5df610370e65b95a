"""The model card, ``README.md`` of a model folder."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lightning_modules.config import ModelConfig
from pipeline.reports.assessment import concerns
from pipeline.reports.perplexity_tables import (
    ABOUT_STATES,
    BAND_COLUMNS,
    BITS,
    NOT_DEFINED,
    RANKS,
    Figures,
    band_rows,
    bits_per_byte,
    evaluations,
    figure,
    perplexity_rows,
    reasons,
    ways,
)
from preprocess.errors import one_line
from preprocess.files.manifest import Manifest, recorded

USE = """\
```python
from biloom import BiLM

model = BiLM.from_pretrained("this folder")
for embedding in model.embed(["A text to embed."]):
    print(embedding.vectors.shape)  # (layers, tokens, dim)
```
"""


def model_card(
    trained: Manifest,
    saved: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    corpus: Mapping[str, Any],
    step: int | None = None,
) -> str:
    """Return Markdown: architecture, stored weights, corpus and perplexities of a model.

    Args:
        trained: manifest of the train stage.
        saved: contents of the model's config.json.
        evaluation: details of the evaluate manifest; empty if there is none.
        corpus: details of the prepare manifest; empty if there is none.
        step: the training step whose weights the model has; None means the last one.
    """
    details = trained.details
    model = recorded(ModelConfig, details, "model")
    recurrent, both = model.recurrent, model.directions == "both"
    width = recurrent.direction_width
    stacks, read = ("Two stacks", "forward and backward") if both else ("One stack", "forward")
    lines = [
        "# Bidirectional language model" if both else "# Language model",
        "",
        f"{stacks} of {recurrent.layers} {recurrent.kind.upper()} layers ({read}, "
        f"cell size {recurrent.hidden}, output size {width}); {details['parameters']:,} parameters; "
        f"vocabulary of {details['vocabulary']:,}. Each token has {recurrent.layers + 1} layers of "
        f"{model.direction_count * width} values. Trained with biloom {escape(trained.biloom)} for "
        f"{details['steps']:,} steps, {details['tokens']:,} tokens "
        f"({details['passes']:.2f} passes over the corpus)."
        f"{_step(details, step or details['steps'])}",
        "",
        _stored(saved),
        "",
        USE,
    ]
    if corpus:
        lines += ["## Corpus", "", "| source | licence | documents | tokens |", "|---|---|---|---|"]
        lines += [
            f"| {escape(source['name'])} | {escape(source['license'] or 'not given')} | "
            f"{source['documents']:,} | {source['tokens']:,} |"
            for source in corpus["sources"]
        ]
        cleaning = escape(", ".join(f"{key} {value}" for key, value in details["cleaning"].items()))
        lines += ["", f"Cleaning, also applied to texts that are embedded: {cleaning}.", ""]
    lines += ["## Measured", ""]
    measured = [_measured(one) for one in evaluations(evaluation) if one["tokens"]]
    for number, one in enumerate(measured):
        lines += ["", *one] if number else one
    if not measured:
        lines += ["Not measured: no held-out text was evaluated."]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Return a name as Markdown that shows its characters and has no markup, on one line.

    Control characters are shown by their codes.
    """
    text = one_line(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\g<0>", text)


# An underscore inside a word is no markup.
_MARKUP = re.compile(r"[\\`*{}\[\]|~$@]|(?<!\w)_|_(?!\w)")


def _step(details: Mapping[str, Any], step: int) -> str:
    """Return a sentence on the step that the weights are of, or nothing if no best step is known."""
    best, steps = details.get("best_step"), details["steps"]
    if best is None:
        return ""
    found = details["best"].get("average_perplexity") or details["best"].get("forward_perplexity")
    sample, whole = details["best"].get("tokens"), (details.get("last") or {}).get("tokens")
    of = f" on a sample of {sample:,} tokens" if sample and whole and sample < whole else ""
    lowest = f"perplexity of held-out text was lowest ({figure(found)}{of})"
    if step == best == steps:
        return f" The weights are those of the last step, at which {lowest}."
    if step == best:
        return f" The weights are those of step {step:,} of {steps:,}, at which {lowest}."
    return f" The weights are those of the last step; {lowest} at step {best:,}."


def _stored(saved: Mapping[str, Any]) -> str:
    parts = [f"Weights are stored as {escape(saved['weights'])}"]
    parts.append("with the output layer" if saved["head"] else "without the output layer")
    if saved["type_vectors"]:
        parts.append("with the vector of every word of the vocabulary")
    if saved["warm_up"] is not None:
        parts.append("with a warm-up text")
    return ", ".join(parts) + "."


def _measured(figures: Figures) -> list[str]:
    lines = [
        f"On the {escape(figures['split'])} split, {figures['tokens']:,} tokens, over the full vocabulary:",
        "",
        *_table(["", *ways(figures)], _rows(perplexity_rows(figures, _exact))),
    ]
    if "by_state" in figures:
        lines += ["", f"{ABOUT_STATES[0].upper()}{ABOUT_STATES[1:]}."]
    if bands := band_rows(figures, _exact):
        about = f"{RANKS[0].upper()}{RANKS[1:]}:"
        lines += ["", about, "", *_table([*BAND_COLUMNS, *ways(figures)], bands)]
    if (bits := bits_per_byte(figures)) != NOT_DEFINED:
        lines += ["", f"{BITS[0].upper()}{BITS[1:]}: {bits}."]
    for reason in reasons(figures):
        lines += ["", escape(f"{reason[0].upper()}{reason[1:]}.")]
    for verdict in concerns(figures):
        lines += ["", f"**{verdict.topic}**: {escape(verdict.text)}"]
    return lines


def _rows(rows: Iterable[list[str]]) -> list[list[str]]:
    return [[f"perplexity {name}", *cells] for name, *cells in rows]


def _exact(perplexity: float | None) -> str:
    return figure(perplexity) if perplexity is None or perplexity >= 1e6 else f"{perplexity:,.2f}"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
