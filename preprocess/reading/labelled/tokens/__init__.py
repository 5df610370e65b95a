"""Tokens and their tags in labelled files."""
