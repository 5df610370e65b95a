"""Published rules for the quality of text, each set in a module of its own, and personal data."""
