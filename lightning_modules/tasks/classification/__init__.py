"""Texts with labels: classification and regression."""
