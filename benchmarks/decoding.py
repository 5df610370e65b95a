"""How much text in legacy encodings is read by default, and with `encoding: auto`.

    python benchmarks/decoding.py FOLDER

The files are in FOLDER/ENCODING or FOLDER/ENCODING-LANGUAGE, as in the folder `tests` of the source of
chardet 5.2 (`pip download --no-deps --no-binary :all: chardet==5.2.0`). Files in ASCII and UTF-8 are
left out. `right` counts files whose texts with `encoding: auto` equal their texts in the encoding of
the folder, or in Microsoft's superset of it. Most of these files are web pages or feeds that name their
encoding; with --hide-names, copies without these names are read.
"""

import argparse
import codecs
import glob
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from preprocess.config import Source
from preprocess.reading.byte_range import DamagedFile
from preprocess.reading.listing import list_source
from preprocess.reading.reader import read_unit
from preprocess.reading.units import plan_units
from preprocess.text.config import CleaningConfig
from preprocess.text.versions import detector_version

WIDER = {"gb2312": "gb18030", "shift_jis": "cp932", "tis-620": "cp874"}
NAMES = re.compile(rb"encoding|charset", re.IGNORECASE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hide-names", action="store_true")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for file, encoding in files_of(options.folder):
            data = file.read_bytes()
            path = Path(scratch, "text.txt")
            path.write_bytes(NAMES.sub(b"", data) if options.hide_names else data)
            counts["files"] += 1
            documents, replaced = read(path, "utf-8")
            counts["read by default"] += documents is not None
            counts["invalid characters by default"] += replaced
            found, _ = read(path, "auto")
            counts["refused with auto"] += found is None
            right = (read(path, one)[0] for one in (encoding, WIDER.get(encoding, encoding)))
            counts["right"] += found is not None and found in right
    print(json.dumps({**detector_version(), **counts}, indent=2))


def files_of(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files in other encodings than UTF-8 that Python knows, each with its encoding."""
    for file in sorted(folder.glob("*/*")):
        name = file.parent.name.lower()
        while name:
            try:
                encoding = codecs.lookup(name.replace("mac", "mac-", 1)).name
            except LookupError:
                name = name.rpartition("-")[0]
                continue
            if encoding not in ("ascii", "utf-8", "utf-8-sig"):
                yield file, encoding
            break


def read(path: Path, encoding: str) -> tuple[list[str] | None, int]:
    """Return the texts of a file, or None if it is refused, and the number of replacements."""
    source = Source(path=glob.escape(str(path)), format="text", encoding=encoding)
    (unit,) = plan_units([source], [list_source(source)], 1 << 30)
    try:
        blocks = list(read_unit(unit, source, CleaningConfig()))
    except DamagedFile:
        return None, 0
    texts = [text for block in blocks for text in block.documents]
    return texts, sum(block.replaced for block in blocks)


if __name__ == "__main__":
    main()
