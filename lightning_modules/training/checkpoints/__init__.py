"""Checkpoints of a training: their format, when they are written, the best one, and initial weights."""
