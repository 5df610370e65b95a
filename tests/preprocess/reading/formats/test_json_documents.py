"""JSON documents: arrays, containers and objects one after the other, whole and damaged."""

import json
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.config import Source
from preprocess.reading.byte_range import DamagedFile
from preprocess.reading.formats.fields import Fields
from preprocess.reading.formats.json_documents import json_records

Found = list[tuple[int, str, str]]


def read(data: str | bytes | Iterable[bytes], limit: int = 10_000, **source: Any) -> Found:
    if isinstance(data, str | bytes):
        data = [data.encode() if isinstance(data, str) else data]
    fields = Fields.of(Source(path="a", **source))
    return [(one.number, one.text, one.reason) for one in json_records(data, "a", fields, limit)]


def texts(data: str, **source: Any) -> list[str]:
    found = read(data, **source)
    assert not any(reason for _, _, reason in found), found
    return [text for _, text, _ in found]


@pytest.mark.parametrize(
    "data",
    [
        '[{"text": "one"}, {"text": "two"}]',
        '[\n{"text":\n"one"}\n,\n{"text": "two"}\n]\n',
        '\ufeff [{"text": "one"},{"text": "two"},]',
        '{"text": "one"}{"text": "two"}',
        '{\n"text": "one"\n}\n{\n"text": "two"\n}',
        '{"text": "one"},\n{"text": "two"},\n',
        '\x1e{"text": "one"}\n\x1e{"text": "two"}\n',
        '[{"text": "one"}]\n[{"text": "two"}]',
        '["one", "two"]',
        '{"version": 1, "data": [{"text": "one"}, {"text": "two"}]}',
        '{"a": [{"text": "one"}], "n": [1, {"text": "x"}], "b": [{"text": "two"}], "c": [[]]}',
        '[{"text": "one", "a": [{"text": "no"}]}, {"a": "}]\\"{[", "text": "two"}]',
        '{"a": [{"text": "no"}], "text": "one"}{"text": "two", "a": [{"text": "no"}]}',
    ],
)
def test_texts_are_read_from_any_shape(data: str) -> None:
    assert texts(data) == ["one", "two"]
    assert texts("".join(data.split("\n"))) == ["one", "two"]


def test_paths_lead_from_the_record() -> None:
    data = '{"data": [{"p": [{"t": "a"}, {"t": "b"}]}, {"p": [{"t": "c"}]}]}'
    assert texts(data, text_field="p[].t") == ["a\nb", "c"]
    assert texts(data, text_field="data[].p[].t") == ["a\nb\nc"]
    assert texts('[{"a": "x", "b": {"c": "y"}}]', template="{a}: {b.c}") == ["x: y"]


def test_records_are_located_by_their_first_byte() -> None:
    data = '{"n": 1, "data": [ {"text": "é"}, {"text": "b"}]}\n {"text": "c"}'
    encoded = data.encode()
    places = [encoded.index(one) for one in (b'{"text": "\xc3', b'{"text": "b', b'{"text": "c')]
    assert [number for number, _, _ in read(data)] == places


def test_what_is_no_record_is_rejected_with_its_reason() -> None:
    data = '[{"text": 1}, {"body": "a"}, {"text": "a" "b"}, 7, x, {"text": "ok"}, [], "\\x"] ] y'
    found = [(reason, text) for _, text, reason in read(data)]
    assert found == [
        ("text_not_a_string", '{"text": 1}'),
        ("missing_text_field", '{"body": "a"}'),
        ("invalid_json", '{"text": "a" "b"}'),
        ("missing_text_field", "7"),
        ("invalid_json", "x"),
        ("", "ok"),
        ("missing_text_field", "[]"),
        ("invalid_json", '"\\x"'),
        ("invalid_json", "] y"),
    ]


def test_an_object_without_text_is_one_record() -> None:
    for data in ('{"body": "a", "tags": ["x"]}', '{"body": {"text": "x"}}', "{}", '{"a": [}]'):
        (found,) = read(data)
        assert found[1:] in ((data, "missing_text_field"), (data, "invalid_json"))


def test_a_long_record_is_oversized_and_reading_goes_on() -> None:
    long = json.dumps({"text": "x" * 500})
    data = f'[{{"text": "a"}}, {long}, {{"text": "b"}}]'.encode()
    for size in (1, 7, 100, 10_000):
        chunks = [data[i : i + size] for i in range(0, len(data), size)]
        assert [(t[:9], r) for _, t, r in read(chunks, 100)] == [
            ("a", ""),
            ('{"text": ', "oversized"),
            ("b", ""),
        ]


def test_an_array_in_an_object_is_read_as_a_stream() -> None:
    """A container may be larger than a record and than the memory."""

    def chunks() -> Iterator[bytes]:
        yield b'{"meta": {"text": "no"}, "data": ['
        for i in range(20_000):
            yield b'{"text": "document number %d", "n": [1, 2]},' % i
        yield b'{"text": "last"}], "more": 1}'

    tracemalloc.start()
    fields = Fields.of(Source(path="a"))
    count = sum(not one.reason for one in json_records(chunks(), "a", fields, 5000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_001
    assert peak < 200_000


def test_a_long_record_outside_an_array_is_oversized() -> None:
    found = read('{"n": 1, "text": "' + "x" * 500 + '", "a": [{"text": "no"}]}{"text": "b"}', 100)
    assert [(text, reason) for _, text, reason in found] == [
        ('{"text": ...', "oversized"),
        ("b", ""),
    ]


@pytest.mark.parametrize("end", range(1, 30))
def test_a_document_that_ends_early_is_damaged_after_its_records(end: int) -> None:
    data = '[{"text": "one"}, {"text": "two"}]'
    got: list[str] = []
    with pytest.raises(DamagedFile, match=r"a: ends inside a JSON value that begins at byte \d+;"):
        got.extend(
            one.text
            for one in json_records([data[:-end].encode()], "a", Fields.of(Source(path="a")), 999)
        )


def test_an_invalid_record_costs_itself_and_a_lost_quote_is_told() -> None:
    records = [json.dumps({"text": f"text {i}"}) for i in range(50)]
    records[20] = '{"text": "a\x00b", }'
    found = read(f"[{', '.join(records)}]")
    assert [i for i, (_, _, reason) in enumerate(found) if reason] == [20]
    assert found[20][2] == "invalid_json"
    # Without a quote, the brackets that follow are in strings.
    records[30] = '{"text: "x"}'
    with pytest.raises(DamagedFile, match="ends inside a JSON value"):
        read(f"[{', '.join(records)}]")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["text", "a", "b.c"]), VALUES), max_size=6),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.integers(1, 50),
)
def test_records_do_not_depend_on_chunks_and_equal_those_of_a_parser(
    records: list[dict[str, Any]], indent: int | None, ascii_only: bool, size: int
) -> None:
    data = json.dumps(records, indent=indent, ensure_ascii=ascii_only).encode(
        "utf-8", "surrogatepass"
    )
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    found = read(chunks)
    assert found == read(data)
    fields = Fields.of(Source(path="a"))
    wanted = [fields.text(record) for record in records]
    assert [(text if not reason else "", reason) for _, text, reason in found] == wanted


@given(st.binary(max_size=60), st.integers(1, 7))
def test_any_bytes_are_read_or_counted(data: bytes, size: int) -> None:
    chunks = [b"[", *(data[i : i + size] for i in range(0, len(data), size)), b"]"]
    try:
        found = read(chunks)
    except DamagedFile:
        return
    assert all(isinstance(reason, str) for _, _, reason in found)
