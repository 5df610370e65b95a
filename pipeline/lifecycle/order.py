"""The order in which the stages run, and what each reads. Imports nothing, so it is fast to load."""

STAGE_ORDER = ("tokenizer", "prepare", "train", "evaluate", "export", "embed")

MAKERS = {
    "tokenizer.content": ("tokenizer", "tokenizer"),
    "corpus.content": ("prepare", "corpus"),
    "checkpoint.content": ("train", "checkpoint"),
    "model.content": ("export", "model"),
}
"""Key of a stage's request -> the stage that made this input, and a word for the input."""

SETTINGS = {
    ("prepare", "tokenizer.content"): ("prepare.tokenizer",),
    ("train", "corpus.content"): ("train.corpus",),
    ("evaluate", "corpus.content"): ("evaluate.corpus", "train.corpus"),
    ("evaluate", "checkpoint.content"): ("evaluate.checkpoint",),
    ("export", "checkpoint.content"): ("export.checkpoint",),
    ("embed", "model.content"): ("embed.model",),
}
"""Stage and key of its request -> settings that may name the input's folder; the first one set counts."""

TO_BE_CONTINUED = "to be continued"
"""Stands in a request for the content of an input that will continue the present one, for ``--dry-run``."""
