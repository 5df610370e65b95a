"""Decoding of raw text, and detection of text that is not in its configured encoding."""
