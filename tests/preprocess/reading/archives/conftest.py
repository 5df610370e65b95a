"""Functions that read archives, and members for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from preprocess.reading.options import Limits

SKIP = Limits(skip_damaged=True)
LINES = b"".join(b"line %d of a longer text\n" % number for number in range(400))
MEMBERS = {
    "a.txt": b"one\ntwo\n",
    "sub/b.jsonl": b'{"text": "three"}\n{"text": "four"}\n',
    "image.txt": b"\x89PNG\r\n\x1a\n" + bytes(600),
    "empty.txt": b"",
    "lines": LINES,
}
TEXTS = ["one", "two", "three", "four", *LINES.decode().splitlines()]


class Read(NamedTuple):
    """What was read of an archive.

    Attributes:
        texts: the documents.
        places: their locations.
        rejected: (reason, location) of each rejected record.
        messages: their excerpts.
    """

    texts: list[str]
    places: list[str]
    rejected: list[tuple[str, str]]
    messages: list[str]


ReadArchive = Callable[..., Read]


@pytest.fixture
def read_archive(tmp_path: Path, read_file: Callable[..., Any]) -> ReadArchive:
    """Function that writes bytes to a file and reads it, whole and in ranges unless ``once``."""

    def read(data: bytes, name: str = "a.archive", once: bool = False, **options: Any) -> Read:
        path = tmp_path / name
        path.write_bytes(data)
        found = []
        for sizes in ((1 << 30, 4096), (1024, 700))[: 1 if once else 2]:
            block, places = read_file(path, *sizes, **options)
            found.append(
                Read(
                    block.documents,
                    places,
                    [(one.reason, one.where) for one in block.rejected],
                    [one.excerpt for one in block.rejected],
                )
            )
        assert found[0] == found[-1]
        return found[0]

    return read
