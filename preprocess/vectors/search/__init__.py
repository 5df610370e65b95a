"""Search in a vector cache: the nearest uses of words and the nearest texts."""
