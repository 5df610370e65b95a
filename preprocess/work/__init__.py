"""Unfinished work of a stage: its folder, records, progress, and the shuffle through files."""
