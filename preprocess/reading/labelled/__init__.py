"""Files with labels: texts with classes, words with tags."""
