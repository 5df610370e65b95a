"""Tokenizers behind one interface, their training, vocabularies and reports."""
