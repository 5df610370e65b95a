"""Speed of reading: MB of text per CPU-second for each format, without cleaning and tokenising.

    python benchmarks/formats.py [--mb 20] [FORMAT ...]

Each file has the same documents, of 1,000 characters on average in lines of 100, made from a seed.
For pages of the web, the text is that of the article; navigation and scripts come on top. The last
line is a JSON object: the rate by format.
"""

import argparse
import bz2
import csv
import io
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from preprocess.config import Source
from preprocess.reading.listing import list_source
from preprocess.reading.reader import read_unit
from preprocess.reading.units import plan_units
from preprocess.text.config import CleaningConfig

Texts = Sequence[str]


def texts_of(megabytes: float) -> list[str]:
    """Return documents with about this many bytes."""
    generator = random.Random(1)
    words = [
        "".join(generator.choices("abcdefghijklmnopqrstuvwxyzéü", k=generator.randint(2, 9)))
        for _ in range(5000)
    ]
    found: list[str] = []
    size = 0.0
    while size < megabytes * 1e6:
        lines = [" ".join(generator.choices(words, k=16)) for _ in range(generator.randint(4, 16))]
        found.append("\n".join(lines))
        size += len(found[-1].encode())
    return found


def as_csv(texts: Texts) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([("id", "text"), *enumerate(texts)])
    return buffer.getvalue().encode()


def as_json(texts: Texts) -> bytes:
    return json.dumps([{"id": i, "text": text} for i, text in enumerate(texts)], indent=1).encode()


def as_json_lines(texts: Texts) -> bytes:
    return "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)).encode()


def nested_json_lines(texts: Texts) -> bytes:
    rows = ({"messages": [{"role": "x", "content": c} for c in t.split("\n")]} for t in texts)
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(texts: Texts) -> bytes:
    sink = io.BytesIO()
    other = [text[::-1] for text in texts]
    pyarrow.parquet.write_table(pyarrow.table({"other": other, "text": texts}), sink)
    return sink.getvalue()


def nested_parquet(texts: Texts) -> bytes:
    sink = io.BytesIO()
    rows = [[{"role": "x", "content": c} for c in text.split("\n")] for text in texts]
    pyarrow.parquet.write_table(pyarrow.table({"messages": rows}), sink)
    return sink.getvalue()


def as_arrow(texts: Texts) -> bytes:
    sink = io.BytesIO()
    table = pyarrow.table({"text": texts})
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, 1000)
    return sink.getvalue()


def page(text: str) -> str:
    menu = "".join(f'<li><a href="/{i}">Menu {i}</a></li>' for i in range(30))
    body = "".join(f"<p>{escape(line)}</p>" for line in text.split("\n"))
    return (
        f"<!DOCTYPE html><html><head><title>T</title><script>{'var a = 1;' * 100}</script></head>"
        f"<body><nav><ul>{menu}</ul></nav><main><article>{body}</article></main></body></html>"
    )


def record(body: bytes, kind: str, media: str) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://example.org/\r\n"
        f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def as_warc(texts: Texts) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    return b"".join(
        record(head + page(text).encode(), "response", "application/http; msgtype=response")
        for text in texts
    )


def as_wet(texts: Texts) -> bytes:
    return b"".join(record(text.encode(), "conversion", "text/plain") for text in texts)


def as_wiki(texts: Texts) -> bytes:
    pages = "".join(
        f"<page><title>T{i}</title><ns>0</ns><revision><text>{escape(_marked(text))}</text></revision>"
        "</page>\n"
        for i, text in enumerate(texts)
    )
    return f"<mediawiki>\n{pages}</mediawiki>\n".encode()


def _marked(text: str) -> str:
    words = text.split(" ")
    words[::12] = [f"[[x|{word}]]" for word in words[::12]]
    words[5::40] = [f"{word}<ref>{{{{cite|x=y}}}}</ref>" for word in words[5::40]]
    return " ".join(words)


FORMATS: dict[str, tuple[str, Callable[[Texts], bytes], dict[str, str]]] = {
    "text": ("a.txt", lambda texts: "\n".join(texts).encode(), {}),
    "JSON Lines": ("a.jsonl", as_json_lines, {}),
    "JSON Lines, messages[].content": (
        "a.jsonl",
        nested_json_lines,
        {"text_field": "messages[].content"},
    ),
    "JSON array": ("a.json", as_json, {}),
    "CSV": ("a.csv", as_csv, {}),
    "Parquet": ("a.parquet", as_parquet, {}),
    "Parquet, messages[].content": (
        "a.parquet",
        nested_parquet,
        {"text_field": "messages[].content"},
    ),
    "Arrow": ("a.arrow", as_arrow, {}),
    "WARC": ("a.warc", as_warc, {}),
    "WET": ("a.warc.wet", as_wet, {}),
    "wiki": ("a.xml", as_wiki, {}),
    "wiki, bz2": ("a.xml.bz2", lambda texts: bz2.compress(as_wiki(texts)), {}),
}


def rate(path: Path, settings: dict[str, str]) -> float:
    """Return MB of text per CPU-second."""
    source = Source.model_validate({"path": str(path), **settings})
    size = 0
    begin = time.process_time()
    for unit in plan_units([source], [list_source(source)], None):
        for block in read_unit(unit, source, CleaningConfig()):
            size += sum(map(len, block.documents))
    return size / 1e6 / (time.process_time() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description="MB of text per CPU-second for each format.")
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--mb", type=float, default=20)
    arguments = parser.parse_args()
    texts = texts_of(arguments.mb)
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.formats or FORMATS:
            name, make, settings = FORMATS[kind]
            path = Path(folder) / name
            path.write_bytes(make(texts))
            # The first time, modules are imported.
            result[kind] = round(max(rate(path, settings) for _ in range(3)), 1)
            print(f"{kind}: {result[kind]} MB/s, file {path.stat().st_size / 1e6:.1f} MB")
            path.unlink()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
