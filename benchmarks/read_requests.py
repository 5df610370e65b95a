"""Requests and bytes by which prepare's reader reads a corpus on an S3 store.

    python benchmarks/read_requests.py [--text en-simplewiki-100MB.txt.xz]

The store is moto's server on this machine; requests are counted in the S3 client. The text is stored as
one file, which is read in units of 8 MiB, as 1,000 files, as one Zstandard file, and as one Parquet file
with a column that is not read. For each layout: requests, requests a unit or file, and the bytes
requested divided by the bytes stored. The last line has all figures as JSON.
"""

import argparse
import io
import json
import logging
import lzma
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import zstandard
from moto.server import ThreadedMotoServer
from pyarrow import parquet

from preprocess.config import Source
from preprocess.files import storage
from preprocess.reading.listing import list_source
from preprocess.reading.reader import read_unit
from preprocess.reading.units import plan_units
from preprocess.text.config import CleaningConfig

FILES = 1000
COLUMN_ROWS = 100_000
"""Lines of the text in the layouts of many files and of columns."""
UNIT_BYTES = 8 << 20
UNREAD_BYTES = 1000
"""Bytes per row of a column that is not read."""


def main() -> None:
    text = _text()
    lines = text.split("\n")[:COLUMN_ROWS]
    with _store() as counted:
        figures: dict[str, float] = {}
        for name, write in _layouts(text, lines).items():
            folder = f"s3://corpora/{name}"
            write(folder)
            source = Source(path=f"{folder}/*", format="parquet" if name == "parquet" else "auto")
            files = list_source(source)
            units = plan_units([source], [files], UNIT_BYTES)
            counted.clear()
            documents = sum(
                len(block.documents)
                for unit in units
                for block in read_unit(unit, source, CleaningConfig())
            )
            assert not counted["whole objects"], "bytes are counted by ranges"
            requests, moved = counted["requests"], counted["bytes"]
            stored = sum(file.bytes for file in files)
            each = max(len(units), len(files))
            ratio = moved / stored
            print(
                f"{name}: {documents:,} documents, {len(files):,} files, {len(units)} units; "
                f"{requests:,} requests, {requests / each:.2f} each; {ratio:.3f} of the bytes stored"
            )
            figures[f"{name}_requests_each"] = round(requests / each, 3)
            figures[f"{name}_bytes"] = round(ratio, 3)
    print(json.dumps(figures))


def _text() -> str:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    data = os.environ.get("BILOOM_TEST_DATA")
    default = f"{data}/raw/en-simplewiki-100MB.txt.xz" if data else None
    parser.add_argument("--text", default=default)
    arguments = parser.parse_args()
    if not arguments.text:
        parser.error("name a text with --text, or set BILOOM_TEST_DATA")
    raw = Path(arguments.text).read_bytes()
    return (lzma.decompress(raw) if arguments.text.endswith(".xz") else raw).decode()


def _layouts(text: str, lines: list[str]) -> dict[str, Callable[[str], None]]:
    def plain(folder: str) -> None:
        storage.write_bytes(f"{folder}/all.txt", text.encode())

    def small(folder: str) -> None:
        for number in range(FILES):
            part = "\n".join(lines[number::FILES])
            storage.write_bytes(f"{folder}/{number:04d}.txt", part.encode())

    def packed(folder: str) -> None:
        storage.write_bytes(
            f"{folder}/all.txt.zst", zstandard.ZstdCompressor().compress(text.encode())
        )

    def columns(folder: str) -> None:
        texts = [line for line in lines if line]
        unread = [os.urandom(UNREAD_BYTES) for _ in texts]
        table = pyarrow.table({"text": texts, "image": unread})
        buffer = io.BytesIO()
        parquet.write_table(table, buffer, row_group_size=10_000)
        storage.write_bytes(f"{folder}/all.parquet", buffer.getvalue())

    return {"text": plain, "files": small, "zst": packed, "parquet": columns}


@contextmanager
def _store() -> Iterator[Counter[str]]:
    """Start a store, and yield the counter of the requests to it and of the bytes they ask for."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(
        FSSPEC_S3_ENDPOINT_URL=f"http://{host}:{port}",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
    )
    import fsspec.config

    fsspec.config.set_conf_env(fsspec.config.conf)
    fs = storage.open_remote("s3://corpora/x")[0]
    fs.mkdir("corpora")
    counted: Counter[str] = Counter()

    def count(request: Any, **_: Any) -> None:
        counted["requests"] += 1
        span = request.headers.get("Range")
        if span:
            first, last = re.findall(r"\d+", span.decode() if isinstance(span, bytes) else span)
            counted["bytes"] += int(last) + 1 - int(first)
        elif request.method == "GET":
            counted["whole objects"] += 1

    fs.s3.meta.events.register("request-created.s3", count)
    yield counted
    server.stop()


if __name__ == "__main__":
    main()
