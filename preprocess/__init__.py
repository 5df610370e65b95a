"""Reading, cleaning, tokenising and storing text, without Beam and torch."""
