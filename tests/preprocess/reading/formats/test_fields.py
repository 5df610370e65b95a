"""Fields of records: paths, lists and templates."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.config import Source
from preprocess.reading.formats.fields import MISSING, Fields, value_of
from preprocess.text.template import parse_template

RECORD = {
    "text": "top",
    "body": {"text": "inner", "dc.title": "dotted", "n": None},
    "body.text": "whole key",
    "messages": [{"role": "user", "content": "one"}, {"role": "x"}, {"content": None}, 7],
    "pages": [{"lines": ["a", "b"]}, {"lines": ["c"]}],
    "words": ["x", None, "y"],
    "none": [],
    "year": 1999,
    "null": None,
    "odd[]": "brackets",
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("text", "top"),
        ("body.text", "whole key"),
        ("body.dc.title", "dotted"),
        ("body.n", None),
        ("messages[].content", ["one"]),
        ("messages[].role", ["user", "x"]),
        ("pages[].lines[]", ["a", "b", "c"]),
        ("pages[].lines", [["a", "b"], ["c"]]),
        ("words[]", ["x", "y"]),
        ("odd[]", "brackets"),
        ("none[]", MISSING),
        ("messages.content", MISSING),
        ("messages[].absent", MISSING),
        ("text[]", MISSING),
        ("text.a", MISSING),
        ("absent", MISSING),
        ("", MISSING),
    ],
)
def test_a_path_leads_into_objects_and_lists(path: str, value: Any) -> None:
    assert value_of(RECORD, path, MISSING) == value


@pytest.mark.parametrize("record", [None, 7, "text", ["text"], [{"text": "a"}]])
def test_a_record_that_is_no_object_has_no_fields(record: Any) -> None:
    assert Fields.of(Source(path="a")).text(record) == ("", "missing_text_field")


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("messages[].role", ("user\nx", "")),
        ("pages[].lines[]", ("a\nb\nc", "")),
        ("pages[].lines", ("", "text_not_a_string")),
        ("words", ("", "text_not_a_string")),
        ("year", ("", "text_not_a_string")),
        ("null", ("", "text_not_a_string")),
        ("none[]", ("", "missing_text_field")),
    ],
)
def test_the_items_of_a_list_are_joined_by_line_ends(field: str, found: tuple[str, str]) -> None:
    assert Fields.of(Source(path="a", text_field=field)).text(RECORD) == found


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{text}\n\n{body.dc.title}", ("top\n\ndotted", "")),
        ("{{{text}}} ({year})", ("{top} (1999)", "")),
        ("{null}: {text}", (": top", "")),
        ("{messages[].role}|{words[]}", ("user\nx|x\ny", "")),
        ("{null}{body.n}", ("", "missing_text_field")),
        ("{text}{absent}", ("", "missing_text_field")),
        ("{text}{body}", ("", "text_not_a_string")),
        ("{words}", ("", "text_not_a_string")),
    ],
)
def test_a_template_joins_fields(template: str, found: tuple[str, str]) -> None:
    assert Fields.of(Source(path="a", template=template)).text(RECORD) == found


def test_the_id_may_be_a_path() -> None:
    fields = Fields.of(Source(path="a", template="{text} {body.text} {text}", id_field="meta.id"))
    assert fields.all_paths == ("text", "body.text", "meta.id")
    assert [fields.id(one) for one in ({"meta": {"id": 7}}, {"meta": {"id": None}}, {})] == [
        "7",
        "",
        "",
    ]
    assert fields.missing({"text": ""}) == ["body.text"]


@pytest.mark.parametrize("template", ["", "no field", "{{text}}"])
def test_a_template_without_a_field_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="names no field; write fields in braces"):
        Source(path="a", template=template)


@pytest.mark.parametrize("template", ["{a", "a}", "{a}}", "{}", "{a{b}}"])
def test_a_brace_without_its_partner_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"has a single '[{}]'; fields are written as \{name\}"):
        Source(path="a", template=template)


def test_a_template_stands_in_place_of_a_text_field() -> None:
    with pytest.raises(ValueError, match="set either text_field or template"):
        Source(path="a", template="{a}", text_field="b")
    assert Source(path="a", template="{a}", text_field="text").template == "{a}"


@given(
    st.lists(st.tuples(st.text(alphabet="ab{}\n"), st.sampled_from(["x", "y.z"]))),
    st.text(alphabet="c{}"),
)
def test_literals_and_paths_of_a_template_return(parts: list[tuple[str, str]], end: str) -> None:
    def literal(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    template = "".join(f"{literal(text)}{{{path}}}" for text, path in parts) + literal(end)
    if not parts:
        return
    literals, paths = parse_template(template)
    assert literals == (*(text for text, _ in parts), end)
    assert paths == tuple(path for _, path in parts)
