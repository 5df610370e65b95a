"""Names of members as labels: they are shown and recorded, and never used as a path."""

import stat

from preprocess.reading.block import escaped


def label_of(name: str) -> str:
    """Return a member's name as the part of a location: relative, without ``..``, printable.

    Several members may have one label, as they may have one name.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return escaped("/".join(parts)) or "?"


def decode_name(name: bytes, is_utf8: bool = False) -> str:
    """Return the name of a member of a zip archive.

    Many programs write UTF-8 without the flag for it. Other names are in an encoding that is not known;
    code page 437 is that of the format's specification, and has a character for each byte.
    """
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("utf-8", "backslashreplace") if is_utf8 else name.decode("cp437")


def kind_of_mode(mode: int) -> str:
    """Return what a member with a Unix mode is if it is not a file or folder, otherwise nothing."""
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_IFMT(mode) and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return "a device, pipe or socket"
    return ""
