"""The identity of local files that are reached by several paths."""

import os

Place = tuple[int, int, str]


class Places:
    """Tells whether two local paths lead to the same entry of the same folder."""

    def __init__(self) -> None:
        self._folders: dict[str, tuple[int, int]] = {}

    def of(self, path: str) -> Place:
        """Return device and inode of the folder that a file is in, and its name there.

        A link to a file has a place of its own, as a hard link has.
        """
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            status = os.stat(folder or "/")  # noqa: PTH116
            self._folders[folder] = (status.st_dev, status.st_ino)
        return *self._folders[folder], name
