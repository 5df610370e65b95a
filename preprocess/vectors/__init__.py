"""The vector cache: its files, index and reader, and neighbours of the words in it."""
