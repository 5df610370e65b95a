"""Tokenizers: one interface for all kinds, training, vocabularies, samples and coverage."""
