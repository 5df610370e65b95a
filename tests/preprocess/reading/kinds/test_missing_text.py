"""The clause that says why records have no text."""

from pathlib import Path

import pytest

from preprocess.config import Source
from preprocess.reading.kinds.missing_text import why_no_text
from preprocess.reading.listing import list_source
from preprocess.reading.units import plan_units


@pytest.mark.parametrize(
    ("content", "field", "clause"),
    [
        (
            '\n{"body": "x", "id": 7, "meta": {"text": 1}}\n',
            "text",
            "; a.jsonl:1 has no 'text', its keys are 'body', 'id', 'meta'; set text_field on its",
        ),
        ('{"data": {"text": "x"}}', "data.txt", "a.jsonl:0 has no 'data.txt', its keys are 'data'"),
        ('{"body": "' + "x" * 9000 + '", "id": 1}', "text", "its keys are 'body'; set"),
        ('"a string"', "text", "; a.jsonl:0 has no 'text'; set text_field on its source"),
        ('{"text": ""}', "text", ""),
        ("{broken", "text", ""),
    ],
)
def test_the_first_record_without_text_is_named_with_its_keys(
    tmp_path: Path, content: str, field: str, clause: str
) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    source = Source(path=str(tmp_path / "a.jsonl"), text_field=field)
    units = plan_units([source], [list_source(source)], None)
    found = why_no_text(units, [source])
    assert clause in found
    assert bool(found) == bool(clause)


def test_a_command_without_sources_gives_its_own_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "x"}')
    source = Source(path=str(tmp_path / "a.jsonl"))
    units = plan_units([source], [list_source(source)], None)
    assert why_no_text(units, [source], "rename the field") == (
        "; a.jsonl:0 has no 'text', its keys are 'body'; rename the field"
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_the_fields_of_a_template_that_a_record_lacks_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"title": "x", "meta": {"a": 1}}\n')
    source = Source(path=str(tmp_path / name), template="{title}: {body} {meta.a} {lead[]}")
    units = plan_units([source], [list_source(source)], None)
    assert why_no_text(units, [source]) == (
        f"; {name}:0 has no 'body' and 'lead[]', its keys are 'title', 'meta'; set template on its source"
    )


def test_files_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "x"}')
    source = Source(path=str(tmp_path / "a.jsonl"))
    units = plan_units([source], [list_source(source)], None)
    (tmp_path / "a.jsonl").unlink()
    assert why_no_text(units, [source]) == ""
