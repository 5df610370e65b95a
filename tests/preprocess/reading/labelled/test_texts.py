"""Labelled texts in every format, and what is told about them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.errors import UserError
from preprocess.files.storage import write_bytes
from preprocess.reading.labelled.description import describe
from preprocess.reading.labelled.examples import LabelledText, Reading
from preprocess.reading.labelled.options import LabelledTextOptions
from preprocess.reading.labelled.texts import check_labels, read_labelled_texts

Texts = Callable[..., Reading[LabelledText]]


def pairs(reading: Reading[LabelledText]) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.text, one.labels) for one in reading.examples]


def message(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


WANTED = [("good day", ("pos",)), ("bad, day", ("neg",)), ("a day", ("pos",)), ("no", ("neg",))]


@pytest.mark.parametrize(
    ("content", "how"),
    [
        ("text\tlabel\ngood day\tpos\nbad, day\tneg\na day\tpos\nno\tneg\n", "TSV with a header"),
        ("pos\tgood day\r\nneg\tbad, day\r\npos\ta day\r\nneg\tno\r\n", "TSV without a header"),
        ('text,label\ngood day,pos\n"bad, day",neg\na day,pos\nno,neg', "CSV with a header"),
        ("Satz;Art\ngood day;pos\nbad, day;neg\na day;pos\nno;neg", "CSV with ';' with a header"),
        (
            "__label__pos good day\nbad, __label__neg day\n__label__pos a day\nno __label__neg\n",
            "fastText (__label__)",
        ),
        ("pos good day\nneg bad, day\npos a day\nneg no\n", "lines that begin with their label"),
        (
            '{"text": "good day", "label": "pos"}\n{"text": "bad, day", "label": "neg"}\n\n'
            '{"text": "a day", "label": "pos"}\n{"text": "no", "label": "neg"}\n',
            "JSON Lines",
        ),
        (
            json.dumps([{"review": text, "class": labels[0]} for text, labels in WANTED], indent=1),
            "a JSON array of objects",
        ),
    ],
)
def test_the_format_is_found_from_the_content(texts: Texts, content: str, how: str) -> None:
    reading = texts(content)
    assert reading.format == how
    assert pairs(reading) == WANTED
    assert (reading.read, reading.dropped, reading.target) == (4, {}, "single")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_text_may_be_in_any_unicode_encoding(texts: Texts, encoding: str) -> None:
    content = "label\ttext\n" + "pos\tein schöner Tag\nneg\t曇りの日\n" * 30
    reading = texts(content.encode(encoding))
    assert pairs(reading)[:2] == [("ein schöner Tag", ("pos",)), ("曇りの日", ("neg",))]
    assert reading.read == 60


def test_another_encoding_is_found_and_told(texts: Texts) -> None:
    pytest.importorskip("chardet")
    lines = "1\tun café très agréable à la plage\n0\tune journée détestable, hélas, à éviter\n" * 20
    reading = texts(lines.encode("cp1252"))
    assert pairs(reading)[0] == ("un café très agréable à la plage", ("1",))
    assert "lines that are not UTF-8: 40; the file is read as " in reading.notes[0]
    assert pairs(texts(lines.encode("cp1252"), encoding="cp1252")) == pairs(reading)


def test_damaged_lines_are_dropped_alone(texts: Texts) -> None:
    reading = texts("a\té\nb\tà\n".encode() * 3 + b"a\tcaf\xe9\n")
    assert reading.dropped == {"invalid characters": 1}
    assert reading.shown == {"invalid characters": ("line 7",)}


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_a_compressed_file_is_unpacked(texts: Texts, kind: str) -> None:
    import bz2
    import gzip
    import lzma

    import zstandard

    pack: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": zstandard.compress,
    }
    packed = pack[kind](b"x\ta b c d\ny\te f\n" * 40)
    assert texts(packed).read == 80
    if kind != "zst":
        assert "truncated; replace it with an intact copy" in message(lambda: texts(packed[:-9]))


def test_a_url_is_read() -> None:
    write_bytes("memory://labelled/file", b"x\ta b\ny\tc d\nx\te f\n")
    reading = read_labelled_texts("memory://labelled/file", LabelledTextOptions())
    assert reading.read == 3


def test_quotes_line_breaks_and_delimiters_in_fields(texts: Texts) -> None:
    content = 'text,label\r\n"one, two",a\r\n"he said ""no""",b\r\n"two\r\nlines",a\r\n"",b\r\n5" wide,a\r\n'
    reading = texts(content)
    assert pairs(reading) == [
        ("one, two", ("a",)),
        ('he said "no"', ("b",)),
        ("two\r\nlines", ("a",)),
        ('5" wide', ("a",)),
    ]
    assert [one.place for one in reading.examples] == ["line 2", "line 3", "line 4", "line 7"]
    assert reading.dropped == {"empty text": 1}
    assert "quotes around fields are removed" in reading.notes


@pytest.mark.parametrize("row", ['"{},\ntwo ""lines"",\nor three",{}', '{1},"{0},\ntwo ""lines"""'])
def test_every_record_may_have_line_breaks(texts: Texts, row: str) -> None:
    rows = "\n".join(row.format(f"text {n}", "ab"[n % 2]) for n in range(9))
    reading = texts(rows)
    assert (reading.read, reading.dropped) == (9, {})
    assert {one.labels for one in reading.examples} == {("a",), ("b",)}
    assert reading.examples[0].text.startswith('text 0,\ntwo "lines"')


@pytest.mark.parametrize(
    ("row", "text", "label"),
    [("{1},{1};fine {0}", "fine 3", "1,1"), ("so, {0}, yes;{1}", "so, 3, yes", "1")],
)
def test_a_comma_of_a_number_or_a_text_is_no_delimiter(
    texts: Texts, row: str, text: str, label: str
) -> None:
    reading = texts("\n".join(row.format(n, n % 2) for n in range(20)))
    assert (reading.examples[3].text, reading.examples[3].labels) == (text, (label,))


def test_delimiters_that_stand_in_texts_too(texts: Texts) -> None:
    rows = [f"{'ab'[n % 2]},a text{', with more' * (n % 3)}" for n in range(20)]
    assert (
        message(lambda: texts("\n".join(rows)))
        .partition(": ")[2]
        .startswith(
            "its lines have different numbers of ',' (1 to 3); put quotes around texts that contain ','"
        )
    )


def test_a_quote_that_is_not_closed_costs_one_line(texts: Texts) -> None:
    lines = [f'"a, text {n}",{n % 2}' for n in range(40)]
    lines[7] = '"bad text,1'
    lines[20] = '"a "quoted" word",0'
    reading = texts("\n".join(["text,label", *lines]))
    assert reading.read == 40
    assert reading.dropped == {"quotes that do not match": 2}
    assert reading.shown == {"quotes that do not match": ("line 9", "line 22")}


def test_two_stray_quotes_do_not_enclose_the_records_between_them(texts: Texts) -> None:
    lines = [f'"a, text {n}",{n % 2}' for n in range(40)]
    lines[7:11] = ['"an open quote,1', "a text,0", "another one,1", 'a closed quote",0']
    reading = texts("\n".join(["text,label", *lines]))
    assert reading.shown == {"quotes that do not match": ("line 9",)}
    assert pairs(reading)[7:10] == [
        ("a text", ("0",)),
        ("another one", ("1",)),
        ('a closed quote"', ("0",)),
    ]


def test_quotes_without_meaning_stay(texts: Texts) -> None:
    lines = [f"{chr(34) if n in (3, 4, 9) else ''}a text {n}\t{n % 2}" for n in range(20)]
    reading = texts("\n".join(lines))
    assert pairs(reading)[3] == ('"a text 3', ("1",))
    assert reading.read == 20


def test_what_is_dropped_is_counted_with_its_places(texts: Texts) -> None:
    content = "text\tlabel\na\tx\nonly text\n\tx\nc\t\na\tb\tc\n\n  \ty\nd\ty\n"
    reading = texts(content)
    assert pairs(reading) == [("a", ("x",)), ("d", ("y",))]
    assert reading.read == 7
    assert describe(reading)[1] == (
        "7 read = 2 used + 5 dropped (empty text 2: line 4, line 8; too few fields 1: line 3; "
        "no label 1: line 5; too many fields 1: line 6)"
    )


def test_objects_of_any_kind_are_counted(texts: Texts) -> None:
    values: list[Any] = [
        {"text": "a", "label": "x"},
        {"text": None, "label": "x"},
        {"text": 5, "label": "x"},
        {"text": " ", "label": "x"},
        {"label": "x"},
        {"text": "b", "label": None},
        {"text": "c", "label": {"name": "x"}},
        {"text": "d", "label": True},
        {"text": "e", "label": 1.5},
        {"text": "f\ud800", "label": "x"},
        {"text": "g", "label": "x\ud800"},
        {"text": "h", "label": ["x", "y"]},
        {"text": "i", "label": [["x"]]},
        [1],
    ]
    lines = [json.dumps(value) for value in values] + ["not json", "[" * 100_000]
    reading = texts("\n".join(lines), target="single")
    assert pairs(reading) == [("a", ("x",)), ("d", ("true",)), ("e", ("1.5",))]
    assert reading.dropped == {
        "no text": 2,
        "text is not a string": 1,
        "empty text": 1,
        "no label": 1,
        "label is an object (name one of its fields, as in label=a.b)": 1,
        "label is not a string": 1,
        "invalid characters": 2,
        "several labels": 1,
        "not an object": 1,
        "invalid JSON": 2,
    }


def test_the_first_line_of_json_lines_may_be_damaged(texts: Texts) -> None:
    for first in ("damaged", '{"text": "a", "la'):
        reading = texts(first + '\n{"text": "b", "label": "x"}' * 3)
        assert reading.dropped == {"invalid JSON": 1}


def test_labels_stay_as_they_are(texts: Texts) -> None:
    labels = ["a\tb", "a\nb", "é", "e\u0301", " a", "a", "A", "\u2028", "日本", '"', "O"]
    content = "".join(json.dumps({"text": f"t{label}", "label": label}) + "\n" for label in labels)
    reading = texts(content)
    assert [one.labels for one in reading.examples] == [(label,) for label in labels]
    (note,) = (note for note in reading.notes if "kept apart" in note)
    assert "' a' and 'a' and 'A'" in note
    stripped = texts(content, strip_labels=True)
    assert stripped.examples[4].labels == ("a",)


def test_ten_thousand_labels(texts: Texts) -> None:
    rows = "".join(f"a text\tlabel {n % 10_000}\n" for n in range(20_000))
    reading = texts("text\tlabel\n" + rows)
    assert len({one.labels for one in reading.examples}) == 10_000
    check_labels(reading)


def test_a_text_of_a_million_tokens(texts: Texts) -> None:
    long = "word " * 1_000_000
    reading = texts(f'x\t"{long}\n"\ny\tshort\nx\ta\ny\tb\n')
    assert reading.examples[0].text == f"{long}\n"


@pytest.mark.parametrize("ends", ["\r", "\r\n", "\n"])
def test_line_ends(texts: Texts, ends: str) -> None:
    reading = texts(ends.join(["a\u0085b\u2028\fc\tx", "d\ty", "e\tx", ""]))
    assert pairs(reading) == [("a\u0085b\u2028\fc", ("x",)), ("d", ("y",)), ("e", ("x",))]
    assert ("lines end with a carriage return alone" in reading.notes) == (ends == "\r")


class TestHeaders:
    """Line 1 holds names or data, and what was decided is told."""

    def test_known_names(self, texts: Texts) -> None:
        reading = texts("label\ttext_a\n" + "1\tgood\n0\tbad\n" * 3)
        assert reading.columns == {"text": "'text_a' (column 2)", "label": "'label' (column 1)"}
        assert reading.notes == (
            "line 1 names the columns ('label', 'text_a'); header=no reads it as data",
        )

    def test_unknown_names(self, texts: Texts) -> None:
        reading = texts("Urteil\tKommentar\n" + "gut\tein langer Text\nschlecht\tein Text\n" * 5)
        assert reading.read == 10
        assert "because it is unlike the lines below" in reading.notes[0]
        assert reading.columns["label"] == "'Urteil' (column 1, guessed)"

    def test_the_index_of_a_data_frame_has_no_name(self, texts: Texts) -> None:
        reading = texts(",text,label\n" + "".join(f"{n},text {n},{n % 2}\n" for n in range(9)))
        assert (reading.read, reading.format) == (9, "CSV with a header")

    def test_data(self, texts: Texts) -> None:
        reading = texts("a fine film\t1\nbad\t0\n" * 5)
        assert reading.read == 10
        assert describe(reading)[0].endswith(
            "TSV without a header; text: column 1 (guessed), label: column 2 (guessed)"
        )
        assert reading.notes == (
            "line 1 is data ('a fine film', '1'); header=yes reads it as names",
        )

    def test_a_label_may_be_a_usual_name(self, texts: Texts) -> None:
        reading = texts("question\tWhat is it?\nstatement\tSo it is.\n" * 5)
        assert reading.read == 10

    def test_a_header_that_is_read_as_data_is_told(self, texts: Texts) -> None:
        reading = texts("text\tlabel\n" + "a b\tx\nc d\ty\n" * 9, header="no")
        assert reading.read == 19
        assert "line 1 looks like names of columns ('text', 'label'); header=no was set" in (
            reading.notes
        )
        assert any("is that of no other text: is this a header?" in note for note in reading.notes)

    def test_data_that_is_read_as_a_header_is_told(self, texts: Texts) -> None:
        reading = texts("a fine film\t1\n" + "bad\t0\ngood\t1\n" * 9, header="yes")
        assert reading.read == 18
        assert "line 1 looks like data ('a fine film', '1'); header=yes was set" in reading.notes

    def test_a_header_of_lines_with_labels_first(self, texts: Texts) -> None:
        reading = texts("label the text\n" + "x a b\ny c d\n" * 9)
        assert any("'label', is that of no other text" in note for note in reading.notes)

    def test_a_header_that_does_not_fit(self, texts: Texts) -> None:
        content = "text\tlabel\n" + "1\ta b\tx\n" * 9
        assert "the header has 2 names, but most lines have 3 fields" in message(
            lambda: texts(content)
        )


class TestColumns:
    """The columns that are set, found by name, or guessed."""

    rows = "".join(f"{n}\tsome text {n}\t{'ab'[n % 2]}\t{'xyz'[n % 3]}\n" for n in range(30))

    def test_by_number_and_name(self, texts: Texts) -> None:
        reading = texts(self.rows, text="2", label="4")
        assert pairs(reading)[1] == ("some text 1", ("y",))
        assert reading.notes[0] == "not used: column 1, column 3"
        named = texts("id\ttext\tone\ttwo\n" + self.rows, label="ONE")
        assert pairs(named)[1] == ("some text 1", ("b",))

    def test_several_columns_that_may_be_labels(self, texts: Texts) -> None:
        assert message(lambda: texts(self.rows)).endswith(
            "more than one column looks like one of labels: column 3 ('a', 'b'); column 4 ('x', 'y', "
            "'z'); set label to the right one, by its name or number"
        )

    def test_no_column_of_labels(self, texts: Texts) -> None:
        content = "".join(f"some text {n}\tmore text {n}\n" for n in range(30))
        assert "no column looks like one of labels: column 1" in message(lambda: texts(content))

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"label": "kind"}, "no column 'kind'; set label to one of 'id', 'text', 'one', 'two'"),
            ({"text": "9"}, "no column '9'; set text to one of 'id', 'text', 'one', 'two'"),
            ({"text": "one", "label": "one"}, "'one' is set as text and as label"),
            ({"label": "one", "labels": "two"}, "label and labels are both set"),
        ],
    )
    def test_a_wrong_name(self, texts: Texts, options: dict[str, str], problem: str) -> None:
        assert problem in message(lambda: texts("id\ttext\tone\ttwo\n" + self.rows, **options))

    def test_a_name_without_a_header(self, texts: Texts) -> None:
        assert (
            "there is no column 'kind'; the first line ('0', 'some text 0', 'a', 'x') is no header that "
            "names it; set label to a number from 1 to 4, or header=yes"
        ) in message(lambda: texts(self.rows, label="kind"))
        assert "no column '5', because this table has no header" in message(
            lambda: texts(self.rows, label="5")
        )

    def test_a_name_that_occurs_twice(self, texts: Texts) -> None:
        content = "text\tlabel\tlabel\n" + "a b\tx\ty\n" * 9
        assert "2 columns are named 'label'; name the column by its number, such as label=2" in (
            message(lambda: texts(content, label="label"))
        )

    def test_swapped_columns_are_told(self, texts: Texts) -> None:
        content = "text\tlabel\n" + "".join(f"a text {n}\t{n % 2}\n" for n in range(40))
        notes = texts(content, text="label", label="text").notes
        assert (
            "40 different labels in 40 texts ('a text 0', 'a text 1', 'a text 2'): is this"
            in (notes[1])
        )
        assert notes[2] == "different texts: 2 of 40; is this the column of the texts?"

    def test_pairs(self, texts: Texts) -> None:
        content = "sentence1\tsentence2\tlabel\n" + "a b\tc d\tyes\ne\tf\tno\ng\t\tno\n" * 3
        reading = texts(content)
        assert (reading.examples[0].text, reading.examples[0].pair) == ("a b", "c d")
        assert reading.dropped == {"empty second text": 3}
        swapped = texts(content, text="2", pair="1")
        assert (swapped.examples[0].text, swapped.examples[0].pair) == ("c d", "a b")

    def test_fields_of_objects_in_objects(self, texts: Texts) -> None:
        line = '{"doc": {"body": "a b"}, "gold": {"name": "x"}}\n'
        reading = texts(line * 3, text="doc.body", label="gold.name")
        assert pairs(reading)[0] == ("a b", ("x",))
        assert "set label to one of 'doc', 'gold'" in message(
            lambda: texts(line, text="doc.body", label="gold.kind")
        )


class TestTargets:
    """One label, several labels, or a number."""

    def test_lists_of_labels(self, texts: Texts) -> None:
        reading = texts(
            '{"text": "a", "labels": ["x", "y", "x"]}\n{"text": "b", "labels": []}\n{"text": "c"}\n'
        )
        assert pairs(reading) == [("a", ("x", "y")), ("b", ())]
        assert (reading.target, reading.dropped) == ("several", {"no label": 1})
        assert reading.notes == ("texts with none of the labels: 1",)

    def test_several_labels_of_fasttext(self, texts: Texts) -> None:
        reading = texts("__label__x __label__y a b\n__label__x c\nd\n__label__y\n")
        assert pairs(reading) == [("a b", ("x", "y")), ("c", ("x",))]
        assert (reading.target, reading.dropped) == ("several", {"no label": 1, "empty text": 1})

    def test_a_separator(self, texts: Texts) -> None:
        content = "text\tlabels\na\tx|y\nb\ty\nc\t\nd\tz|x\n"
        assert texts(content, separator="|").examples[2].labels == ()
        assert pairs(texts(content, separator="|"))[0] == ("a", ("x", "y"))
        assert pairs(texts(content, separator="pipe")) == pairs(texts(content, separator="|"))
        assert (
            "labels that contain '|': 2, such as 'x|y'; separator=pipe splits each into several labels"
            in texts(content).notes
        )

    def test_numbers(self, texts: Texts) -> None:
        content = "".join(f"text {n}\t{n / 7}\n" for n in range(30)) + "a\tn/a\nb\tnan\nc\tinf\n"
        reading = texts(content, target="number")
        assert reading.examples[7].value == 1.0
        assert (reading.target, reading.dropped) == ("number", {"label is not a number": 3})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "this file is empty (0 bytes)"),
        ("\n \n", "this file has 3 bytes of blank lines"),
        ("text\tlabel\n", "read as TSV with a header, it has no texts"),
        ("text\tlabel\n \tx\n", "none of its 1 records can be used (empty text 1: line 2)"),
        ("<html><body>a</body></html>", "this is an HTML page, not a file of labelled texts"),
        (b"%PDF-1.4 ", "this is a PDF document"),
        (b"PK\x03\x04aaaaaaaa", "this is a zip archive"),
        ('{"data": [{"text": "a", "label": "b"}]}', "no column looks like one of labels: data"),
        ('{\n "data": [1]\n}', "this JSON is neither JSON Lines nor an array of objects"),
        ('[{"text": "a", "label": "x"},', "begins like JSON and is not valid JSON"),
        ("EU NNP B-ORG\nsaid VBD O\n\nHe PRP O\nsaid VBD O\n", "looks like CoNLL columns"),
        ("One line of prose.\nAnother line of it,\nand so on.\n", "its format cannot be told"),
    ],
)
def test_what_is_no_labelled_file(texts: Texts, content: str | bytes, problem: str) -> None:
    assert problem in message(lambda: texts(content))


def test_a_path_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        assert "cannot be read (" in message(
            lambda path=path: read_labelled_texts(str(path), LabelledTextOptions())  # type: ignore[misc]
        )


def test_a_format_that_is_set(texts: Texts) -> None:
    assert texts("a b,c\na d,e\n", format="label-first").examples[0].labels == ("a",)
    assert "no ',', ';' or '|' separate its columns" in message(
        lambda: texts("a\tb\nc\td\n", format="csv")
    )
    assert "no tabs separate its columns" in message(lambda: texts("a,b\nc,d\n", format="tsv"))
    assert "is not a Parquet file; set format=auto" in message(
        lambda: texts("a\tb\n", format="parquet")
    )


def test_columns_of_a_format_that_has_none(texts: Texts) -> None:
    for content in ("__label__a b\n", "a some text\nb text\na text\nb more text\n"):
        assert "this file has no columns, because its labels are" in message(
            lambda content=content: texts(content, label="2")  # type: ignore[misc]
        )
        assert "remove text=, or set format" in message(
            lambda content=content: texts(content, text="x")  # type: ignore[misc]
        )


def test_the_header_of_a_joined_file_is_no_text(texts: Texts) -> None:
    content = "text\tlabel\na b\tx\nc\ty\n"
    assert texts(content * 2).dropped == {"the header again": 1}


def test_one_label_is_too_few_to_train(texts: Texts) -> None:
    reading = texts("text\tlabel\na\tx\nb\tx\n")
    assert message(lambda: check_labels(reading)).endswith(
        "its 2 texts have only the label 'x' in 'label' (column 2), and a classifier needs two; check "
        "the column of the labels (label=…)"
    )
    check_labels(texts('{"text": "a", "labels": ["x"]}\n{"text": "b", "labels": []}\n'))


class TestFlags:
    """Labels that have a column each."""

    rows = tuple((f"text {n}", n % 2, n % 3 == 0) for n in range(12))
    table = "id,text,toxic,rude\n" + "".join(
        f"{n},text {n},{n % 2},{int(n % 3 == 0)}\n" for n in range(12)
    )

    def test_it_is_told_how_to_read_them(self, texts: Texts) -> None:
        assert message(lambda: texts(self.table)).endswith(
            "or labels=toxic,rude if each column is a label"
        )
        data = self.table.partition("\n")[2]
        assert message(lambda: texts(data)).endswith("or labels=3,4 if each column is a label")
        assert pairs(texts(data, labels="3,4"))[1] == ("text 1", ("column 3",))

    def test_columns_and_fields(self, texts: Texts) -> None:
        reading = texts(self.table + "12,last,1,\n", labels="toxic,rude")
        assert pairs(reading)[:3] == [("text 0", ("rude",)), ("text 1", ("toxic",)), ("text 2", ())]
        assert (reading.target, reading.columns["labels"]) == (
            "several",
            "a column each (toxic, rude)",
        )
        assert reading.dropped == {"a label column holds neither 0 nor 1": 1}
        assert reading.notes[0] == "not used: id"
        objects = [{"text": t, "of": {"toxic": a}, "rude": b} for t, a, b in self.rows]
        found = texts("\n".join(map(json.dumps, objects)), labels="of.toxic,rude")
        assert pairs(found)[3] == ("text 3", ("of.toxic", "rude"))

    def test_parquet(self, tmp_path: Path) -> None:
        text, toxic, rude = zip(*self.rows, strict=True)
        path = TestParquet().write(tmp_path / "file", text=text, toxic=toxic, rude=rude)
        reading = read_labelled_texts(path, LabelledTextOptions(labels="toxic,rude"))
        assert pairs(reading)[3] == ("text 3", ("toxic", "rude"))


def test_lists_that_are_written_as_text(texts: Texts) -> None:
    reading = texts("text\tlabels\na b\t['x', 'y']\nc d\t[]\ne f\t[\"x\"]\ng\t\n")
    assert pairs(reading) == [("a b", ("x", "y")), ("c d", ()), ("e f", ("x",))]
    assert (reading.target, reading.dropped) == ("several", {"no label": 1})
    assert "the labels are lists that are written as text, such as ['x', 'y']" in reading.notes
    assert texts("text\tlabels\na b\t[27]\nc d\t[3]\n").target == "single"
    # Python would join both strings.
    assert texts("text\tlabels\na b\t['x' 'y']\nc d\t['z']\n").target == "single"


def test_labels_that_are_numbers(texts: Texts) -> None:
    rows = "text\tvalue\n" + "".join(f"a text {n}\t{n}.5\n" for n in range(20))
    assert message(lambda: texts(rows)).endswith("; target=number predicts numbers")
    note = "the 20 labels are numbers, but are read as names of classes; target=number predicts numbers"
    assert note in texts(rows, label="value").notes
    assert texts(rows, target="number").examples[3].value == 3.5
    commas = texts("text;value\na b;3,5\nc d;2\n", target="number", label="value")
    assert commas.dropped == {"label is not a number (write 3.5 for 3,5)": 1}


class TestParquet:
    """Rows of Parquet files."""

    def write(self, path: Path, **columns: Any) -> str:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table(columns), path)
        return str(path)

    def test_rows(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        path = self.write(
            tmp_path / "file",
            sentence=pyarrow.array(["a", None, "c", "d"]).dictionary_encode(),
            label=[0, 1, None, 1],
            idx=[0, 1, 2, 3],
        )
        reading = read_labelled_texts(path, LabelledTextOptions())
        assert pairs(reading) == [("a", ("0",)), ("d", ("1",))]
        assert reading.dropped == {"no text": 1, "no label": 1}
        assert reading.shown == {"no text": ("row 1",), "no label": ("row 2",)}
        assert reading.notes == ("not used: idx",)

    def test_lists_and_structs(self, tmp_path: Path) -> None:
        path = self.write(
            tmp_path / "file", doc=[{"body": "a"}, {"body": "b"}], labels=[["x", "y"], []]
        )
        reading = read_labelled_texts(path, LabelledTextOptions(text="doc.body"))
        assert pairs(reading) == [("a", ("x", "y")), ("b", ())]
        assert reading.target == "several"

    def test_classes_have_the_names_that_hugging_face_gives_them(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({"text": ["a", "b", "c"], "label": [1, 0, -1]})
        names = {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}
        self.write_with(tmp_path / "file", table, names)
        reading = read_labelled_texts(str(tmp_path / "file"), LabelledTextOptions())
        assert pairs(reading) == [("a", ("pos",)), ("b", ("neg",))]
        assert reading.dropped == {"no label": 1}
        assert reading.notes == (
            "'label': numbers are read as the names that the file has for them ('neg', 'pos')",
        )
        self.write_with(tmp_path / "other", table, {"label": {"feature": [5]}})
        other = read_labelled_texts(str(tmp_path / "other"), LabelledTextOptions())
        assert pairs(other)[0] == ("a", ("1",))

    @staticmethod
    def write_with(path: Path, table: Any, features: dict[str, Any]) -> None:
        from pyarrow import parquet

        metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        parquet.write_table(table.replace_schema_metadata(metadata), path)

    def test_invalid_bytes(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "file", text=[b"a", b"caf\xe9"], label=["x", "y"])
        reading = read_labelled_texts(path, LabelledTextOptions())
        assert reading.dropped == {"invalid characters": 1}

    def test_damage_and_wrong_columns(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "file", text=["a", "b"], label=["x", "y"])
        assert "no column 'kind'; set label to one of 'text', 'label'" in message(
            lambda: read_labelled_texts(path, LabelledTextOptions(label="kind"))
        )
        assert "this is a Parquet file; set format=auto" in message(
            lambda: read_labelled_texts(path, LabelledTextOptions(format="tsv"))
        )
        (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:-20])
        assert "cannot be read as Parquet" in message(
            lambda: read_labelled_texts(path, LabelledTextOptions())
        )
        assert "has no rows" in message(
            lambda: read_labelled_texts(
                self.write(tmp_path / "none", text=[]), LabelledTextOptions()
            )
        )


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="'klingon' is not an encoding that Python knows"):
        LabelledTextOptions(encoding="klingon")


@pytest.mark.parametrize(
    ("name", "options", "read", "labels"),
    [
        ("sst2/dev.tsv", {}, 872, 2),
        ("trec/TREC.train.all", {"encoding": "cp1252"}, 5452, 6),
        ("mr/rt-polarity.all", {"encoding": "cp1252"}, 10662, 2),
        ("chnsenticorp/dev.tsv", {}, 1200, 2),
        ("wsd/wsd_senseval.tsv", {"label": "2"}, 15225, 19),
        ("mcl-wic/dev.en-en.data", {"label": "pos"}, 1000, 4),
    ],
)
def test_real_files(name: str, options: dict[str, str], read: int, labels: int) -> None:
    data = os.environ.get("BILOOM_TEST_DATA")
    if not data:
        pytest.skip("BILOOM_TEST_DATA names no folder of test data")
    reading = read_labelled_texts(f"{data}/labelled/{name}", LabelledTextOptions(**options))
    assert (reading.read, len(reading.examples)) == (read, read)
    assert len({one.labels for one in reading.examples}) == labels
