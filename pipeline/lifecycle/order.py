"""The stages in the order in which they run. Imports nothing, so that the command line can."""

STAGE_ORDER = ("tokenizer", "prepare", "train", "evaluate", "export", "embed")
