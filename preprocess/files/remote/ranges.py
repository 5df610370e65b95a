"""Byte ranges of objects."""

from typing import Any

from preprocess.files.errors import StoreError


def read_range(fs: Any, inner: str, start: int, end: int | None) -> bytes:
    """Return the bytes ``[start, end)`` of an object; None means to its end.

    A range that begins at or after the end of the object is empty.

    Args:
        fs: file system as `preprocess.files.storage.open_remote` returns it.
        inner: path in it.
        start: first byte.
        end: byte after the last one.

    Raises:
        FileNotFoundError: the object does not exist.
    """
    # Without a range, because none fits an empty object.
    if start == 0 and end is None:
        return bytes(fs.cat_file(inner))
    if end is not None and end <= start:
        fs.info(inner)  # raises FileNotFoundError, as for any other range
        return b""
    try:
        data = bytes(fs.cat_file(inner, start=start, end=end))
    except StoreError:
        # A store refuses a range that begins at or after the end (HTTP status 416).
        size = fs.info(inner)["size"]
        if size is None or start < size:
            raise
        return b""
    # A web server may ignore the range and send the whole file.
    whole = end is not None and len(data) > end - start
    return data[start:end] if whole else data


def may_ignore_ranges(path: str) -> bool:
    """Return True if a range may cost as much as the whole file: web servers, archives and caches."""
    return "::" in path or path.startswith(("http://", "https://"))
