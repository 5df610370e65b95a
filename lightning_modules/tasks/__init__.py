"""Heads on the vectors: classifiers, taggers, explanations and probes."""
