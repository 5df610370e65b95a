"""`biloom probe`, `biloom neighbours` and `biloom map`."""
