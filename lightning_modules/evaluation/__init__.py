"""Perplexity of held-out text, and scores of single texts."""
