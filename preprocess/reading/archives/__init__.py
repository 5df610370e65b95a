"""Archives: their members as streams, read one after the other without unpacking to disk."""
