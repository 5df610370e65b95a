"""The fields that may hold the text of records."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from preprocess.config import PrepareConfig
from preprocess.corpus.sampling.choice import SampleSize, choose_places
from preprocess.corpus.sampling.fields import fields_of, find_fields, without_text
from preprocess.corpus.sampling.reading import FileSample, read_sample
from preprocess.reading.listing import list_source

RECORDS = [
    {"id": f"{n}", "body": {"title": "a title", "text": "a long text " * 9}, "tags": ["a", "b"]}
    for n in range(30)
]


def sample_of(path: Path, **settings: Any) -> tuple[FileSample, Any]:
    config = PrepareConfig(input=({"path": str(path), **settings},))
    files = [list_source(source) for source in config.sources]
    places = choose_places(config.sources, files, 1, SampleSize())
    [sample] = read_sample(places, config, config.sources)
    return sample, config.sources[0]


def write(path: Path) -> Path:
    lines = "".join(f"{json.dumps(record)}\n" for record in RECORDS)
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(RECORDS), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.suffix == ".json":
        path.write_text(json.dumps({"items": [{"id": "0", "body": None}, *RECORDS]}, indent=2))
    else:
        path.write_text(lines)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_the_longest_field_is_first(name: str, tmp_path: Path) -> None:
    sample, source = sample_of(write(tmp_path / name))
    assert without_text([sample]) is sample
    fields = find_fields(sample, source)
    assert [field.path for field in fields] == ["body.text", "body.title", "tags[]", "id"]
    assert fields[0].share == 1
    assert fields[0].characters == 108


def test_the_records_of_a_json_document_are_searched(tmp_path: Path) -> None:
    sample, source = sample_of(write(tmp_path / "a.json"))
    fields = find_fields(sample, source)
    assert [field.path for field in fields] == ["body.text", "body.title", "tags[]", "id"]
    assert fields[0].share == 30 / 31


def test_a_file_whose_text_is_found_lacks_none(tmp_path: Path) -> None:
    sample, _ = sample_of(write(tmp_path / "a.jsonl"), text_field="body.text")
    assert without_text([sample]) is None
    assert sum(len(block.documents) for block in sample.blocks) == 30


def test_a_file_without_texts_beside_others_is_no_matter(tmp_path: Path) -> None:
    good, _ = sample_of(write(tmp_path / "a.jsonl"), text_field="body.text")
    (tmp_path / "info.json").write_text('{"features": {"text": {"dtype": "string"}}}')
    bad, _ = sample_of(tmp_path / "info.json")
    assert without_text([bad, good]) is None
    assert without_text([bad]) is bad
    (tmp_path / "b.csv").write_text("title,body\na,b\n")
    refused, _ = sample_of(tmp_path / "b.csv")
    assert without_text([refused]) is refused


def test_an_object_with_a_record_for_each_name_has_its_fields_without_the_names() -> None:
    records = {f"k{n}": {"text": "long words" * n, "id": "x"} for n in range(1, 5)}
    fields = fields_of([records])
    assert [field.path for field in fields] == ["*.text", "*.id"]
    assert fields[0].share == 1
    assert fields[0].characters == 25
    two = {"a": {"text": "x"}, "b": {"text": "y"}}
    assert [field.path for field in fields_of([two])] == ["a.text", "b.text"]
    assert fields_of([records, records])[0].path == "k4.text"
    assert fields_of([{**records, "n": 3}])[0].path == "k4.text"


def test_a_field_that_few_records_have_comes_later() -> None:
    records = [{"text": "some words"}] * 9 + [{"text": "some words", "error": "x" * 50}]
    assert [field.path for field in fields_of(records)] == ["text", "error"]
    assert fields_of([{"a": {"b": [{"c": "x"}]}}])[0].path == "a.b[].c"


def test_records_that_cannot_be_read_have_no_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    sample, source = sample_of(tmp_path / "a.parquet")
    assert sample.problem
    assert find_fields(sample, source) == []
