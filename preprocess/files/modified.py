"""When a file was last written, by the clock of its disk or store."""

from preprocess.files.storage import is_remote, local_path, open_remote


def modified(path: str) -> float | None:
    """Return when a file was last written, in seconds since 1970; None if its store does not tell.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    if not is_remote(path):
        return local_path(path).stat().st_mtime
    fs, inner = open_remote(path)
    fs.invalidate_cache()
    try:
        return float(fs.modified(inner).timestamp())
    except (NotImplementedError, AttributeError, KeyError, TypeError):
        return None
