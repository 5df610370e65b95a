"""Records of tables, beside Python's csv module where that is right."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.reading.tables.records import Dialect, find_dialect, read_records

FIELD = st.text(st.sampled_from('ab ",;\n\r\t\\é\u2028\0'), max_size=6)


@settings(deadline=None)
@given(st.lists(st.lists(FIELD, min_size=2, max_size=3), min_size=1, max_size=5), st.booleans())
def test_what_csv_writes_is_read_back(rows: list[list[str]], crlf: bool) -> None:
    file = io.StringIO(newline="")
    end = "\r\n" if crlf else "\n"
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator=end).writerows(rows)
    lines = file.getvalue().removesuffix("\n").split("\n")
    assert [one.fields for one in read_records(lines, Dialect(",", quoted=True))] == rows


@given(st.lists(st.text(st.sampled_from('a",\r'), max_size=8), max_size=8))
def test_every_line_is_in_one_record(lines: list[str]) -> None:
    for dialect in (Dialect(",", True), Dialect(",", True, True), Dialect(",", False)):
        records = list(read_records(lines, dialect))
        covered = [one.line + n for one in records for n in range(one.lines)]
        assert covered == sorted({*covered})
        assert {n for n, line in enumerate(lines, 1) if line.strip(" \r")} <= {*covered}


def test_a_record_is_numbered_by_its_first_line() -> None:
    lines = ["", '"a', 'b",1', "c,2", '"d" e,3', "", '"f,4']
    found = list(read_records(lines, Dialect(",", True)))
    assert [(one.line, one.lines, one.fields) for one in found] == [
        (2, 2, ["a\nb", "1"]),
        (4, 1, ["c", "2"]),
        (5, 1, []),
        (7, 1, []),
    ]


def test_a_quote_may_not_enclose_records() -> None:
    lines = ['"a,1', "b,2", 'c",3']
    assert len(list(read_records(lines, Dialect(",", True)))) == 1
    found = list(read_records(lines, Dialect(",", True), lambda line: line[-1].isdigit()))
    assert [one.fields for one in found] == [[], ["b", "2"], ['c"', "3"]]


@pytest.mark.parametrize(
    ("lines", "dialect"),
    [
        (['"a",1', '"b, c",2'], Dialect(",", True)),
        (["a\t1", "b\t2"], Dialect("\t", False)),
        (['"a\t1', 'b"\t2', "c\t1"], Dialect("\t", False)),
        (['"a "quoted" word"\t1', '"b" and\t2'], Dialect("\t", False)),
        (['"a \\"quoted\\" word",1', '"b",2'], Dialect(",", True, True)),
    ],
)
def test_the_meaning_of_quotes_is_found(lines: list[str], dialect: Dialect) -> None:
    assert find_dialect(lines, dialect.delimiter)[0] == dialect


def test_escaped_quotes_are_quotes() -> None:
    _, records = find_dialect(['"a \\"b\\" c",1', '"d",2'], ",")
    assert records[0].fields == ['a "b" c', "1"]
