"""Pure data code: reading, cleaning, tokenising and storing text. Knows neither Beam nor torch."""
