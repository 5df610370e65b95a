"""Names of the checkpoints in a finished train folder. Imports no torch."""

CHECKPOINT = "checkpoint.ckpt"
"""The last step: weights, optimiser and carried state, from which training continues."""
BEST = "best.ckpt"
"""The step with the lowest held-out loss: weights only. Missing without held-out text, and in the folders
of former versions."""
