"""Files of each format go through every step together, are counted, traced and resumed."""

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from preprocess.files.manifest import check_files, read_manifest

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")
pytest.importorskip("resiliparse")
Capture = pytest.CaptureFixture[str]


def record(kind: str, media: str, body: str) -> str:
    return (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://example.org/a\r\n"
        f"Content-Type: {media}\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}\r\n\r\n"
    )


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    page = "<!DOCTYPE html><html><body><main><p>A page, in words.</p></main></body></html>"
    files = {
        "a.csv": 'title,text\nOne,"first, line\nsecond line"\nTwo\n',
        "b.json": json.dumps({"data": [{"title": "T", "text": "json words"}, {"title": "x"}]}),
        "c.warc": record("request", "application/http", "GET /")
        + record("response", "application/http", f"HTTP/1.1 200 OK\r\n\r\n{page}"),
        "d.html": page.replace("A page", "Another page"),
        "e.xml": "<mediawiki><page><title>W</title><ns>0</ns><revision><text>A [[wiki]] page."
        "</text></revision></page></mediawiki>",
        "f.conllu": "# sent_id = s1\n# text = A sentence.\n1\tA\n\n",
    }
    for name, data in files.items():
        (folder / name).write_text(data, newline="")
    table = pyarrow.table({"title": ["P"], "text": ["parquet words"]})
    pyarrow.parquet.write_table(table, folder / "g.parquet")
    with pyarrow.ipc.new_file(folder / "h.arrow", table.schema) as writer:
        writer.write_table(table.set_column(1, "text", [["arrow words"]]))
    return folder


def test_files_of_all_formats_are_prepared_and_traced(
    raw: Path, tmp_path: Path, capsys: Capture
) -> None:
    arguments = [
        *(f"prepare.input={raw}/*", f"run.output={tmp_path}/out", "tokenizer.kind=char"),
        *("prepare.valid_fraction=0", "runner.options.mode=in_memory"),
    ]
    for stage in ("tokenizer", "prepare"):
        assert main([stage, *arguments]) == 0
    manifest = read_manifest(f"{tmp_path}/out/prepare", "prepare")
    assert check_files(f"{tmp_path}/out/prepare", manifest) == []
    dropped = [
        json.loads(line)
        for file in sorted((tmp_path / "out/prepare").glob("dropped-*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    assert sorted((one["reason"], one["where"]) for one in dropped) == [
        ("invalid_csv", "a.csv:line 4"),
        ("missing_text_field", "b.json:48"),
        ("warc_request", "c.warc:0 id=http://example.org/a"),
    ]
    capsys.readouterr()
    assert main(["prepare", *arguments]) == 0
    assert "already done" in capsys.readouterr().out
    for name, place in (
        ("a.csv", "a.csv:line 2"),
        ("c.warc", "id=http://example.org/a"),
        ("e.xml", "id=W"),
        ("f.conllu", "f.conllu:0 id=s1"),
        ("g.parquet", "g.parquet:row 0"),
        ("h.arrow", "h.arrow:row 0"),
    ):
        assert main(["trace", f"{tmp_path}/out/prepare", "--file", name]) == 0
        assert place in capsys.readouterr().out


def test_a_template_joins_fields_of_every_format(raw: Path, tmp_path: Path) -> None:
    arguments = [
        f"prepare.input=[{{path: '{raw}/[abgh].*', template: '{{title}}: {{text}}'}}]",
        *(f"run.output={tmp_path}/out", "tokenizer.kind=char"),
        *("prepare.valid_fraction=0", "runner.options.mode=in_memory"),
    ]
    for stage in ("tokenizer", "prepare"):
        assert main([stage, *arguments]) == 0
    stats = json.loads((tmp_path / "out/prepare/stats.json").read_text())
    assert stats["documents"]["written"] == 4


def test_a_missing_column_stops_the_stage_with_those_that_exist(
    raw: Path, tmp_path: Path, capsys: Capture
) -> None:
    arguments = [
        f"prepare.input=[{{path: '{raw}/[ag].*', template: '{{title}} {{body}}'}}]",
        *(f"run.output={tmp_path}/out", "tokenizer.kind=char", "runner.options.mode=in_memory"),
    ]
    assert main(["tokenizer", *arguments]) == 2
    error = capsys.readouterr().err
    assert "without a column 'body'; its first record is 'title', 'text'" in error
