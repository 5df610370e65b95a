"""A stage's unfinished work: the layout of its folder, progress records and the hash shuffle through files."""
