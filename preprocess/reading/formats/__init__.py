"""Formats of raw files: detection, and a reader for each format.

A reader is a function ``read_X(stream, options) -> Iterator[Block]``; `table.READERS` maps the name
of a format to it. See `preprocess.reading.formats.table` for what a reader gets and returns.
"""
