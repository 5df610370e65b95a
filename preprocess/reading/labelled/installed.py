"""Paragraphs of the documentation of installed packages, labelled with their package.

An example of a classification that needs no download.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from preprocess.files.fingerprint import fingerprint
from preprocess.files.search.found import FileInfo
from preprocess.reading.installed_docs import list_files, paragraphs
from preprocess.reading.labelled.rows import Row, Rows

OF_A_PACKAGE, OF_A_FILE = 400, 10
"""Largest numbers of paragraphs, chosen at random with a fixed seed."""


def installed_rows() -> Rows:
    """Return some paragraphs of each package, all different."""
    return Rows("documentation of installed packages", _rows(), {"label": "package"})


def installed_content() -> str:
    """Return a hash of the names and sizes of the files that `installed_rows` reads."""
    return fingerprint({file.name: file.bytes for file in list_files()})


def _rows() -> Iterator[Row]:
    files: dict[str, list[FileInfo]] = {}
    for file in list_files():
        files.setdefault(file.name.partition("/")[0], []).append(file)
    draw, seen = random.Random(1), set[str]()
    for package, own in files.items():
        left = OF_A_PACKAGE
        # Only as many files are parsed as are needed.
        for file in draw.sample(own, len(own)):
            source = Path(file.path).read_text(encoding="utf-8", errors="replace")
            texts = [text for text in dict.fromkeys(paragraphs(source)) if text not in seen]
            for text in draw.sample(texts, min(OF_A_FILE, left, len(texts))):
                seen.add(text)
                left -= 1
                yield Row(file.name, text, label=package)
            if not left:
                break
