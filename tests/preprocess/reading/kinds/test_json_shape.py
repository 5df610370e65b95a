"""JSON Lines, JSON documents, and prose that begins with a bracket."""

import json
from typing import Any

import pytest

from preprocess.reading.formats.fields import MISSING, value_of
from preprocess.reading.kinds.json_shape import is_document, scan, shape_of

RECORDS = [{"text": 'one "quoted" \\ and\ttab', "n": [1, -2.5e3, None, True]}, {"text": "two"}]
LINES = "\n".join(map(json.dumps, RECORDS))


@pytest.mark.parametrize("indent", [None, 0, 2, "\t"])
@pytest.mark.parametrize("value", [RECORDS, {"data": RECORDS}, [["a", 1]], ["a"], [[RECORDS]]])
def test_documents_are_recognised_whole_or_cut_anywhere(indent: Any, value: Any) -> None:
    text = "\ufeff\n " + json.dumps(value, indent=indent) + "\n"
    lines = indent is None and isinstance(value, dict)
    assert is_document(text, complete=True) is not lines
    assert shape_of(text, True, "text") == "document"
    if not lines:
        for end in range(12, len(text)):
            found = scan(text[:end].lstrip("\ufeff \n"))
            assert found.state in ("cut", "whole")
            if found.state == "cut" and found.structured:
                assert shape_of(text[:end], False, "text") == "document"


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (LINES, "lines"),
        ("\n\n" + LINES.replace("\n", "\n\n"), "lines"),
        ('{"body": "x"}', "lines"),
        ('{"body": "x"}\n{"body": "y"}', "lines"),
        ('{"body": "x"}\nprose', None),
        ('{"text": "x"}\nbroken', "lines"),
        ('{"a": {"text": "x"}}\nbroken', None),
        (LINES.replace("\n", ",\n"), "document"),
        (LINES.replace("\n", " "), "document"),
        (LINES.replace("\n", "\ufeff"), "lines"),
        ('["id", "text"]\n["1", "x"]', "document"),
        ('["id", "text"]\nprose', None),
        ("{\n}", None),
        ("[1] Smith, J. A reference.\n[2] Another.", None),
        ("[1]\n[2]\n", None),
        ("[1, 2]\n", None),
        ("[Music] What a day", None),
        ("[\nprose\n]", None),
        ("[", None),
        ("{", None),
        ('{"', None),
        ('"a text in quotes"\n"another"', None),
        ("{curly} prose", None),
        ('{"text": "cut in the first line\n{"text": "x"}', None),
        ('{"text": "x",\n{"text": "y"}', None),
        ("", None),
    ],
)
def test_shapes(text: str, shape: str | None) -> None:
    assert shape_of(text, True, "text") == shape


def test_an_overlong_record_is_a_line_and_deep_brackets_are_not_json() -> None:
    assert shape_of('{"text": "' + "x" * 9000, False, "text") == "lines"
    assert shape_of('{"a": [{"text": "x"}], "text": "' + "x" * 9000, False, "text") == "lines"
    assert shape_of('{"n": 1, "data": [{"text": "' + "x" * 9000, False, "text") == "document"
    assert shape_of('{"n": 1, "data": [{"text": "x"}]}', True, "text") == "document"
    assert shape_of('{"n": 1, "data": [{"text": "x"}]}', True, "data[].text") == "lines"
    assert shape_of("[" * 9000, False, "text") is None
    assert not is_document("[" * 9000, False)
    assert scan('{"a": 1, "b": {"c": "d"}, "e').keys == ["a", "b"]


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [
        ({"text": "x"}, "text", "x"),
        ({"a": {"b": {"c": "x"}}}, "a.b.c", "x"),
        ({"a": {"b": "x"}, "a.b": "y"}, "a.b", "y"),
        ({"a": {"b": None}}, "a.b", None),
        ({"a": {"b": "x"}}, "a.c", MISSING),
        ({"a": ["x"]}, "a.b", MISSING),
        ({}, "a", MISSING),
    ],
)
def test_dots_lead_into_nested_objects(record: dict[str, Any], field: str, value: Any) -> None:
    assert value_of(record, field, MISSING) is value
