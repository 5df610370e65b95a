"""The order in which the stages run, and what each reads. Imports nothing heavy, so it is fast to load."""

from collections.abc import Callable, Sequence

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
    ("evaluate", "checkpoint.content"): ("evaluate.checkpoint", "export.checkpoint"),
    ("export", "checkpoint.content"): ("export.checkpoint",),
    ("embed", "model.content"): ("embed.model",),
}
"""Stage and key of its request -> settings that may name the input's folder; the first one set counts."""

BEST_STEP, LAST_STEP = "best", "last"
"""Values of `evaluate.checkpoint` and `export.checkpoint` that name a checkpoint of this run's training."""


def setting_in_effect(
    settings: Sequence[str], value_of: Callable[[str], str | None]
) -> tuple[str, str | None]:
    """Return the first of ``settings`` that is set, and its value; if none is, the first and None."""
    values = ((one, value_of(one)) for one in settings)
    return next(((one, value) for one, value in values if value), (settings[0], None))


def is_elsewhere(setting: str, value: str | None) -> bool:
    """Return True if a setting in `SETTINGS` names a folder or file, not an input of this run."""
    own = (BEST_STEP, LAST_STEP) if setting.endswith(".checkpoint") else ()
    return bool(value) and value not in own


TO_BE_CONTINUED = "to be continued"
"""Stands in a request for the content of an input that will continue the present one, for ``--dry-run``."""
