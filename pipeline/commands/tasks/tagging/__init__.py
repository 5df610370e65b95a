"""`biloom tag`."""
