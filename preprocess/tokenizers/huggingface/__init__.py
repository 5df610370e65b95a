"""Tokenizers of Hugging Face: a `tokenizer.json` file."""
