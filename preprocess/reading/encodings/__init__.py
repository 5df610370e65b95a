"""Encodings of raw text: how it is decoded, when it has another encoding, and which one is likely."""
