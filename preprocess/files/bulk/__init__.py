"""Many files: calls at once, and their records in columns."""
