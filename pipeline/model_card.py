"""The model folder's README.md: what the model is, what it was made of, what was measured."""

from typing import Any

from preprocess.manifest import Manifest

USE = """\
```python
from biloom import BiLM

model = BiLM.from_pretrained("this folder")
for embedding in model.embed(["A text to embed."]):
    print(embedding.vectors.shape)  # (layers, tokens, dim)
```
"""


def model_card(trained: Manifest, evaluation: dict[str, Any], corpus: dict[str, Any]) -> str:
    """Markdown of a trained model: its shape, its corpus and its perplexities."""
    details = trained.details
    recurrent = details["model"]["recurrent"]
    width = recurrent["projection"] or recurrent["hidden"]
    lines = [
        "# Bidirectional language model",
        "",
        f"Two stacks of {recurrent['layers']} {recurrent['kind'].upper()} layers (forward and "
        f"backward, cell {recurrent['hidden']}, output {width}), {details['parameters']:,} "
        f"parameters, vocabulary {details['vocabulary']:,}. A token has {recurrent['layers'] + 1} "
        f"layers of {2 * width} values. Trained with biloom {trained.biloom} for "
        f"{details['steps']:,} steps, {details['tokens']:,} tokens "
        f"({details['passes']:.2f} passes over the corpus).",
        "",
        USE,
    ]
    if corpus:
        lines += ["## Corpus", "", "| source | licence | documents | tokens |", "|---|---|---|---|"]
        lines += [
            f"| {source['name']} | {source['license'] or 'not given'} | {source['documents']:,} | "
            f"{source['tokens']:,} |"
            for source in corpus["sources"]
        ]
        cleaning = ", ".join(f"{key} {value}" for key, value in details["cleaning"].items())
        lines += ["", f"Cleaning, the same when texts are embedded: {cleaning}.", ""]
    lines += ["## Measured", ""]
    if evaluation.get("tokens"):
        lines += [
            f"On the {evaluation['split']} split, {evaluation['tokens']:,} tokens, over the full "
            "vocabulary:",
            "",
            "| | forward | backward | average |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| perplexity a {unit} | {evaluation[f'forward_{key}']:,.2f} | "
            f"{evaluation[f'backward_{key}']:,.2f} | {evaluation[f'average_{key}']:,.2f} |"
            for unit, key in (("token", "perplexity"), ("word", "word_perplexity"))
        ]
        lines += ["", f"Bits a byte of text: {evaluation['bits_per_byte']:.3f}."]
    else:
        lines += ["Not measured: no held-out text was evaluated before the export."]
    return "\n".join(lines) + "\n"
