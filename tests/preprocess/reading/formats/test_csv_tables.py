"""CSV and TSV: dialects, headers, quotes, line ends, and damage that costs only itself."""

import csv
import io
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import Source
from preprocess.reading.byte_range import UnreadableFile
from preprocess.reading.formats.csv_tables import csv_records
from preprocess.reading.formats.fields import Fields
from preprocess.reading.formats.record_blocks import Record


def read(
    data: str | Iterable[bytes], name: str = "a.csv", limit: int = 10_000, **source: Any
) -> list[Record]:
    chunks = [data.encode()] if isinstance(data, str) else data
    return list(csv_records(chunks, name, name, Fields.of(Source(path="a", **source)), limit))


def texts(data: str, name: str = "a.csv", **source: Any) -> list[str]:
    found = read(data, name, **source)
    assert not any(one.reason for one in found), found
    return [one.text for one in found]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_delimiter_is_told_from_the_content(name: str, delimiter: str, end: str) -> None:
    rows = [("id", "text"), ("1", "one, two; three"), ("2", '"four"'), ("3", "a\tb|c")]
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator=end).writerows(rows)
    assert texts(buffer.getvalue(), name) == [text for _, text in rows[1:]]


def test_quoted_fields_hold_line_ends_delimiters_and_quotes() -> None:
    found = read('\ufeffid,text\r\n7,"one\r\n\r\ntwo, ""three"""\r\n8,\r\n9,"x"', id_field="id")
    assert found == [
        Record(2, 'one\r\n\r\ntwo, "three"', "7"),
        Record(5, "", "8"),
        Record(6, "x", "9"),
    ]


def test_a_table_of_one_column_needs_no_delimiter() -> None:
    assert texts("text\none, two; three\nfour, five\n") == ["one, two; three", "four, five"]
    assert texts('text\n"one, two"\n"three"\n') == ["one, two", "three"]


def test_excel_names_its_delimiter() -> None:
    (found,) = read("sep=;\ntext;id\na, b;7\n", id_field="id")
    assert found == Record(3, "a, b", "7")


def test_columns_are_joined_by_a_template() -> None:
    data = "title\tyear\tbody\nOne\t1999\ttext\n\t2000\tmore\n"
    assert texts(data, template="{title} ({year}): {body}") == ["One (1999): text", " (2000): more"]


def test_a_column_is_a_number_if_there_is_no_header() -> None:
    assert texts("7,one\n8,two\n", text_field="2") == ["one", "two"]
    assert [one.id for one in read("7,one\n8,two\n", text_field="2", id_field="1")] == ["7", "8"]
    assert texts("1,2\n8,two\n", text_field="2") == ["two"]


def test_a_value_that_equals_the_number_of_a_column_is_no_name() -> None:
    rows = '"3","Title one","First."\n"2","Title two","Second."\n'
    assert texts(rows, text_field="3") == ["First.", "Second."]
    assert texts("2,2,First.\n1,2,Second.\n", text_field="3") == ["First.", "Second."]
    assert texts("0,1,2\na,b,c\n", text_field="2") == ["c"]
    assert texts("country,2019\nPeru,words\n", text_field="2019") == ["words"]


@pytest.mark.parametrize(
    ("data", "source", "message"),
    [
        ("id,body\n1,a\n", {}, "a.csv: this is CSV without a column 'text'; its first record is "
         "'id', 'body'; name one of these in text_field of its source, or a column's number"),
        ("a\tb\n1\t2\n", {"template": "{a} {c}"}, "this is TSV without a column 'c'; its first "
         "record is 'a', 'b'; name one of these in template"),
        ("a,text\n1,2\n", {"id_field": "id"}, "without a column 'id'; .* in id_field"),
        ("1,2\n3,4\n", {"text_field": "3"}, "without a column '3'; its first record is '1', '2'"),
        ("text,text\n1,2\n", {}, "a.csv: 2 columns are named 'text'; rename them, or remove all"),
        ("x" * 50 + "\n", {}, f"its first record is '{'x' * 40}...'"),
        (",".join(map(str, range(30))), {}, "'19' and 10 more; "),
    ],
)  # fmt: skip
def test_a_missing_column_is_told_with_those_that_exist(
    data: str, source: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnreadableFile, match=message) as caught:
        read(data, **source)
    assert caught.value.reason == "wrong_columns"


def test_a_record_with_another_number_of_fields_is_rejected() -> None:
    found = read("id,text\n1,one\n2,a, b\n3\n\n4,two\n")
    assert found == [
        Record(2, "one"),
        Record(3, "2,a, b", "", "invalid_csv"),
        Record(4, "3", "", "invalid_csv"),
        Record(6, "two"),
    ]


def test_a_quote_that_is_not_closed_costs_its_line() -> None:
    lines = [f'{i},"text {i}"' for i in range(30)]
    lines[7] = '7,"not closed'
    lines[20] = '20,"wrong" quote'
    # Most lines decide, although without the rule of quotes none would be odd.
    found = read("id,text\n" + "\n".join(lines))
    assert [one for one in found if one.reason] == [
        Record(9, '7,"not closed', "", "invalid_csv"),
        Record(22, '20,"wrong" quote', "", "invalid_csv"),
    ]
    assert [one.text for one in found if not one.reason] == [
        f"text {i}" for i in range(30) if i not in (7, 20)
    ]


def test_long_lines_and_records_are_oversized_and_reading_goes_on() -> None:
    long = "x" * 2000
    data = f'id,text\n1,a\n2,{long}\n3,"b\n{long}\n{long}"\n4,c\n'
    data = (data + '5,"d"\n' * 20 + long).encode()
    for size in (9, 300, 10_000):
        chunks = [data[i : i + size] for i in range(0, len(data), size)]
        found = read(chunks, limit=1500)
        assert [(one.text[:5], one.reason) for one in found] == [
            ("a", ""),
            ("2,xxx", "oversized"),
            ('3,"b', "invalid_csv"),
            ("xxxxx", "oversized"),
            ("xxxxx", "oversized"),
            ("c", ""),
            *[("d", "")] * 20,
            ("xxxxx", "oversized"),
        ]


def test_a_long_line_inside_a_quoted_field_makes_its_record_oversized() -> None:
    data = "id,text,n\n" + '1,"a\nb",2\n' * 9 + f'2,"a\n{"x" * 20_000}\nb",3\n4,"c",5\n'
    found = read(data, limit=8000)
    assert [one.reason for one in found][9:] == ["oversized", ""]
    assert all("\udcfe" not in one.text for one in found)


def test_quotes_that_never_match_take_linear_time_and_bounded_memory() -> None:
    def chunks(lines: int) -> Iterator[bytes]:
        yield b"id,text\n"
        for _ in range(lines):
            yield b'x","y\n'

    for lines in (3000, 60_000):
        tracemalloc.start()
        begin = time.process_time()
        found = sum(1 for _ in csv_records(
            chunks(lines), "a.csv", "a.csv", Fields.of(Source(path="a")), 20_000
        ))  # fmt: skip
        seconds = time.process_time() - begin
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found >= 1
        assert peak < 4_000_000
        assert seconds < 10


def test_nul_bytes_and_invalid_bytes_stay_in_their_field() -> None:
    found = read([b"id,text\n1,a\0b\n2,\xff\xfe\n3,ok\n"])
    assert [one.text for one in found] == ["a\0b", "\udcff\udcff", "ok"]


def test_an_empty_table_has_no_records() -> None:
    assert read("") == read("\n \n") == read("id,text\n") == []


FIELDS = st.text(alphabet='ab é,;\t|"\n中', max_size=8)


@settings(deadline=None)
@given(
    st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1, max_size=8),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.integers(1, 40),
)
def test_what_was_written_by_the_csv_module_is_read(
    rows: list[tuple[str, str, str]], delimiter: str, quoting: Any, size: int
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator="\n")
    # Rows without quotes show the number of columns.
    writer.writerows([("id", "text", "n"), *rows, *[("1", "2", "3")] * 30])
    data = buffer.getvalue().encode()
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    found = read(chunks, id_field="id")
    assert found == read([data], id_field="id")
    assert [(one.id, one.text) for one in found if not one.reason] == [
        (key, text) for key, text, _ in (*rows, *[("1", "2", "3")] * 30)
    ]
