"""Members of archives are read in their own formats."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("resiliparse")
Read = Callable[..., Any]  # fixture of conftest.py


def members() -> dict[str, bytes]:
    table = pyarrow.table({"text": ["in a table"], "other": ["no"]})
    columns, arrow = io.BytesIO(), io.BytesIO()
    parquet.write_table(table, columns)
    with pyarrow.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table)
    return {
        "a.csv": b'n,text\n1,"one, two"\n',
        "b.json": json.dumps({"data": [{"text": "three"}]}, indent=1).encode(),
        "c.html": b"<!DOCTYPE html><main><p>Four words of text.</p></main>",
        "d.parquet": columns.getvalue(),
        "e.arrow": arrow.getvalue(),
        "f.xml": b"<mediawiki><page><title>T</title><text>Five</text></page></mediawiki>",
    }


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_are_read_in_their_formats(tmp_path: Path, read_file: Read, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            for name, data in members().items():
                made.writestr(name, data)
    else:
        with tarfile.open(path, "w") as archive:
            for name, data in members().items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    block, places = read_file(path)
    texts = ["one, two", "three", "Four words of text.", "in a table", "in a table", "Five"]
    assert (block.documents, block.rejected) == (texts, [])
    assert places[0] == f"a.{kind}/a.csv:line 2"
    assert places[5] == f"a.{kind}/f.xml:11 id=T"
