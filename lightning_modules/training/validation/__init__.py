"""Validations during training: what they read of the held-out split, and the evaluation of all of it."""
