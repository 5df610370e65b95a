"""Vectors of texts from a trained model."""
