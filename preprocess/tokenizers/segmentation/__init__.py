"""The words of a text and their places: separators, segmenters, given places."""
