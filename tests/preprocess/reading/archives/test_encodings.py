"""The encodings of members are detected one by one, and recorded with the archive."""

import io
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from preprocess.config import Source
from preprocess.reading import stream
from preprocess.reading.changed_inputs import encodings_found, ranges_read
from preprocess.reading.reader import read_unit
from preprocess.reading.units import Range, Unit
from preprocess.text.config import CleaningConfig

pytest.importorskip("chardet")
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая по-своему.\n" * 3
MEMBERS = {
    "a.txt": RUSSIAN.encode(),
    "sub/b.txt": RUSSIAN.encode("cp1251"),
    "c.txt": RUSSIAN.encode("utf-16-le"),
    "d.txt": RUSSIAN.encode("cp1251"),
    "image.png": b"\x89PNG\r\n\x1a\n" + bytes(600),
}


def write(path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for name, data in MEMBERS.items():
                packed.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as made:
        for name, data in MEMBERS.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return path


def rows_of(path: Path, encoding: str = "auto", pieces: int = 1) -> list[dict[str, Any]]:
    size = path.stat().st_size
    edges = [size * number // pieces for number in range(pieces + 1)]
    unit = Unit(
        *(0, 0),
        tuple(Range(path.name, str(path), start, end, size, "v") for start, end in pairwise(edges)),
    )
    reader = read_unit(unit, Source(path=str(path), encoding=encoding), CleaningConfig())
    for _ in reader:
        pass
    return ranges_read(unit, reader.read_so_far())


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_the_row_of_an_archive_has_the_encodings_of_its_members(name: str, tmp_path: Path) -> None:
    [row] = rows_of(write(tmp_path / name))
    assert row["encodings"] == {"cp1251": 2, "utf-16-le": 1, "utf-8": 1}
    assert row["members"] == {"sub/b.txt": "cp1251", "c.txt": "utf-16-le", "d.txt": "cp1251"}
    assert "encoding" not in row
    assert encodings_found([row, {"encoding": "utf-8", "start": 0}]) == {
        **{"cp1251": 2, "utf-16-le": 1, "utf-8": 2}
    }


def test_ranges_of_a_zip_archive_have_their_own_members(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path / "a.zip"), pieces=3)
    assert encodings_found(rows) == {"cp1251": 2, "utf-16-le": 1, "utf-8": 1}
    named = [name for row in rows for name in row.get("members", ())]
    assert sorted(named) == ["c.txt", "d.txt", "sub/b.txt"]


def test_an_encoding_that_is_set_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as made:
        entry = tarfile.TarInfo("a.txt")
        entry.size = len(MEMBERS["d.txt"])
        made.addfile(entry, io.BytesIO(MEMBERS["d.txt"]))
    [row] = rows_of(path, "cp1251")
    assert not row.keys() & {"encodings", "members", "encoding"}


def test_members_beyond_a_number_are_counted_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "NAMED_MEMBERS", 1)
    [row] = rows_of(write(tmp_path / "a.tar"))
    assert row["members"] == {"sub/b.txt": "cp1251"}
    assert row["encodings"]["cp1251"] == 2
