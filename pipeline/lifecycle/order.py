"""The order in which the stages run. Imports nothing, so that the command line stays fast."""

STAGE_ORDER = ("tokenizer", "prepare", "train", "evaluate", "export", "embed")
