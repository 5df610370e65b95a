"""Tagged sentences: CoNLL columns, CoNLL-U, JSON with tags or spans."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.errors import UserError
from preprocess.reading.labelled.description import describe
from preprocess.reading.labelled.examples import Reading, SpanAside, TaggedSentence
from preprocess.reading.labelled.inputs import read_untagged
from preprocess.reading.labelled.options import TaggedOptions
from preprocess.reading.labelled.tagged import read_tagged_sentences

Tagged = Callable[..., Reading[TaggedSentence]]


def lines_of(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def message(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


CONLL = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O

-DOCSTART- -X- O O

# # O O
Peter NNP I-NP I-PER
"""


class TestColumns:
    """A token and its columns a line."""

    @pytest.mark.parametrize("separator", [" ", "\t", "  "])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_the_columns_of_conll_2003(self, tagged: Tagged, separator: str, end: str) -> None:
        reading = tagged(CONLL.replace(" ", separator).replace("\n", end))
        assert [(one.tokens, one.tags, one.place) for one in reading.examples] == [
            (("EU", "rejects"), ("I-ORG", "O"), "line 3"),
            (("#", "Peter"), ("O", "I-PER"), "line 8"),
        ]
        assert reading.columns == {"tokens": "column 1", "tags": "column 4 of 4"}
        assert reading.notes == ("documents (-DOCSTART-): 2",)

    def test_another_column(self, tagged: Tagged) -> None:
        assert tagged(CONLL, tags="2").examples[0].tags == ("NNP", "VBZ")
        assert tagged(CONLL, tokens="2").examples[0].tokens == ("NNP", "VBZ")

    @pytest.mark.parametrize("option", ["0", "5", "ner"])
    def test_a_column_that_is_not_there(self, tagged: Tagged, option: str) -> None:
        assert (
            f"there is no column '{option}'; the columns of this file have no names, so set tags to a "
            "number from 1 to 4"
        ) in message(lambda: tagged(CONLL, tags=option))
        assert "column 4 is set for tokens and for tags" in message(
            lambda: tagged(CONLL, tokens="4")
        )

    def test_a_sentence_with_a_wrong_line_is_dropped(self, tagged: Tagged) -> None:
        content = "a O\nb\n\nc O\n\nd O O\n\ne\tO\n" + "f O\n\n" * 9
        reading = tagged(content)
        assert reading.dropped == {"too few columns": 1, "too many columns": 1}
        assert reading.shown == {"too few columns": ("line 2",), "too many columns": ("line 6",)}
        assert reading.read == 12

    def test_only_tabs_and_spaces_separate(self, tagged: Tagged) -> None:
        reading = tagged("a\u00a0b\u3000c O\nd\u0085e O\n\ne B-X\n")
        assert reading.examples[0].tokens == ("a\u00a0b\u3000c", "d\u0085e")

    def test_a_token_of_whitespace_is_counted(self, tagged: Tagged) -> None:
        reading = tagged("a\tO\n \tO\n\nNew York\tB-X\n\n\u3000\tO\n\nb\tO\n")
        assert reading.dropped == {"empty token": 2}
        assert [one.tokens for one in reading.examples] == [("New York",), ("b",)]

    def test_comments(self, tagged: Tagged) -> None:
        content = "# id 7 domain=en\nEU _ _ B-ORG\n# _ _ O\n\n# id 8 domain=en\nx _ _ O\n"
        reading = tagged(content)
        assert reading.examples[0].tokens == ("EU", "#")
        assert reading.notes == ("comment lines: 2 (line 1: '# id 7 domain=en')",)

    def test_a_column_that_counts_tokens(self, tagged: Tagged) -> None:
        reading = tagged("#\thttp://a\n1\tBonn\tB-LOC\tO\n2\tliegt\tO\tO\n\n1\tEr\tO\tB-PER\n")
        assert reading.examples[0].tokens == ("Bonn", "liegt")
        assert "column 1 counts the tokens, so that the tokens are in column 2 (tokens=2)" in (
            reading.notes
        )
        assert tagged("1\tBonn\tB-LOC\n\n1\tEr\tO\n", tokens="1").examples[0].tokens == ("1",)

    def test_positions_in_words(self, tagged: Tagged) -> None:
        word = "".join(f"{c}{n}\tO\n" for n, c in enumerate("abcdefghij3"))
        content = f"科0\tB-X\n技1\tI-X\n10\tO\n31\tO\n\n{word}00\tO\n11\tO\n"
        reading = tagged(content)
        assert [one.tokens for one in reading.examples] == [
            ("科", "技", "1", "3"),
            tuple("abcdefghij301"),
        ]
        assert any("as in Weibo NER, which is removed (positions=no" in n for n in reading.notes)
        assert tagged(content, positions="no").examples[0].tokens == ("科0", "技1", "10", "31")

    def test_one_wrong_position_among_many(self, tagged: Tagged) -> None:
        content = "照0\tO\n越2\tO\n\n" + "科0\tO\n技1\tO\n\n" * 99
        assert tagged(content).examples[0].tokens == ("照", "越")
        reading = tagged("照0\tO\n越\tO\n\n科0\tB-X\n", positions="yes")
        assert reading.dropped == {"a token without its position": 1}

    def test_no_blank_lines(self, tagged: Tagged) -> None:
        assert "sentences: 1; are blank lines between them missing?" in tagged("a O\n" * 600).notes

    def test_tags_that_say_nothing(self, tagged: Tagged) -> None:
        assert tagged("a O\n\nb O\n").notes == ("all tags are 'O'; check the column of the tags",)
        assert tagged("a 1\n\nb 0\n").notes == (
            "the 2 tags are numbers, which name no spans; for spans, write the names that they stand "
            "for, such as B-PER",
        )

    def test_encodings(self, tagged: Tagged) -> None:
        content = "é B-X\nb O\n\nc O\n"
        assert tagged(content.encode("utf-16")).examples[0].tokens == ("é", "b")
        reading = tagged(content.encode() * 2 + b"\ncaf\xe9 O\n")
        assert reading.dropped == {"invalid characters": 1}


CONLLU = """# sent_id = 1
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\tMood=Imp|Number=Plur\t0\troot\t_\tNER=O
2\tnos\tnosotros\tPRON\t_\tCase=Acc\t1\tobj\t_\t_
2.1\tx\tx\tVERB\t_\t_\t_\t_\t_\t_

1\t# a\t#\tSYM\t_\tNumber=Sing\t0\troot\t_\tNER=B-X

1\tbad\trow
"""


class TestUniversal:
    """CoNLL-U and CoNLL-U Plus."""

    def test_words(self, tagged: Tagged) -> None:
        reading = tagged(CONLLU)
        assert reading.format == "CoNLL-U"
        assert [(one.tokens, one.tags, one.place) for one in reading.examples] == [
            (("Vamos", "nos"), ("VERB", "PRON"), "line 3"),
            (("# a",), ("SYM",), "line 7"),
        ]
        assert reading.dropped == {"not the columns of CoNLL-U": 1}
        assert reading.notes[:2] == (
            "multiword tokens, of which the words are read: 1",
            "empty nodes, which are left out: 1",
        )

    @pytest.mark.parametrize(
        ("option", "tags"),
        [
            ("deprel", ("root", "obj")),
            ("8", ("root", "obj")),
            ("FEATS:Number", ("Plur", "_")),
            # An attribute of spans: words without it are outside.
            ("misc:NER", ("O", "O")),
        ],
    )
    def test_any_column(self, tagged: Tagged, option: str, tags: tuple[str, ...]) -> None:
        reading = tagged(CONLLU, tags=option)
        assert reading.examples[0].tags == tags
        lacking = f"words without {option}, with the tag '{tags[1]}': 1"
        assert (lacking in reading.notes) == (tags[1] in "_O")

    def test_a_wrong_column(self, tagged: Tagged) -> None:
        assert "no column 'ner'; set tags to one of 'ID', 'FORM', 'LEMMA'" in message(
            lambda: tagged(CONLLU, tags="ner")
        )

    def test_plus(self, tagged: Tagged) -> None:
        content = "# global.columns = ID FORM BIO:NER\n1\tEU\tB-ORG\n2\tx\tO\n\n1\ty\tO\n"
        reading = tagged(content)
        assert (reading.format, reading.examples[0].tags) == ("CoNLL-U Plus", ("B-ORG", "O"))
        assert tagged(content, tags="bio:ner").examples[0].tags == ("B-ORG", "O")


TEXT = "Alice Smith, born in Paris, met Bob's friends."


class TestObjects:
    """JSON Lines and arrays."""

    def test_tokens_and_tags(self, tagged: Tagged) -> None:
        reading = tagged(
            lines_of(
                {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
                {"tokens": ["a"], "tags": ["O", "O"]},
                {"tokens": [], "tags": []},
                {"tokens": ["a", ""], "tags": ["O", "O"]},
                {"tokens": ["a", 1], "tags": ["O", "O"]},
                {"tokens": ["a"]},
                {"tags": ["O"]},
                {"tokens": ["a"], "tags": [None]},
                {"tokens": ["\ud800"], "tags": ["O"]},
                5,
            )
            + "no JSON\n"
        )
        assert [one.tags for one in reading.examples] == [("B-ORG", "O")]
        assert reading.dropped == {
            "tokens and tags differ in number": 1,
            "no tokens": 2,
            "empty token": 1,
            "a token is not a string": 1,
            "no tags": 1,
            "a tag is not a string": 1,
            "invalid characters": 1,
            "not an object": 1,
            "invalid JSON": 1,
        }

    def test_an_array_with_other_names(self, tagged: Tagged) -> None:
        content = json.dumps([{"words": ["a", "b"], "ner_tags": [0, 3], "id": 1}], indent=1)
        reading = tagged(content)
        assert (reading.format, reading.examples[0].place) == ("a JSON array of objects", "item 1")
        assert reading.examples[0].tags == ("0", "3")
        assert reading.notes[0] == "not used: id"
        assert tagged(content, tokens="words", tags="ner_tags").read == 1

    def test_spans(self, tagged: Tagged) -> None:
        reading = tagged(
            lines_of(
                {"text": TEXT, "spans": [[0, 11, "PER"], [20, 25, "LOC"], [32, 35, "PER"]]},
                {"text": TEXT, "spans": []},
                {"text": TEXT},
                {"text": "", "spans": []},
            )
        )
        first = reading.examples[0]
        assert first.tokens[:3] == ("Alice", "Smith", ",")
        assert first.offsets[:3] == ((0, 5), (6, 11), (11, 12))
        assert {first.tokens[i]: tag for i, tag in enumerate(first.tags) if tag != "O"} == {
            "Alice": "B-PER",
            "Smith": "I-PER",
            "Bob": "B-PER",
        }
        assert {*reading.examples[1].tags} == {"O"}
        assert reading.dropped == {"no spans": 1, "empty text": 1}
        assert reading.aside == (
            SpanAside("not at the bounds of tokens", "line 1", 20, 25, "LOC", " Pari"),
        )

    def test_spans_that_do_not_fit_are_listed(self, tagged: Tagged) -> None:
        spans: list[Any] = [
            [0, 10, "PER"],
            [0, 11, "PER"],
            [0, 5, "PER"],
            [32, 99, "PER"],
            [-3, 2, "PER"],
            [5, 5, "X"],
            [5, 6, "X"],
            [7, 5, "X"],
            [11.0, 12, "X"],
            [1, 2],
            "x",
            {"start": 21, "end": 25, "label": "LOC", "text": "Paris"},
        ]
        reading = tagged(lines_of({"text": TEXT, "spans": spans}))
        assert sorted((one.reason, one.start, one.end) for one in reading.aside) == [
            ("empty span", 5, 5),
            ("empty span", 5, 6),
            ("empty span", 7, 5),
            ("its text differs", 21, 25),
            ("not a span", -1, -1),
            ("not a span", -1, -1),
            ("not a span", -1, -1),
            ("not at the bounds of tokens", 0, 10),
            ("outside the text", -3, 2),
            ("outside the text", 32, 99),
            ("overlaps another span", 0, 5),
        ]
        assert reading.examples[0].tags[:2] == ("B-PER", "I-PER")
        last = describe(reading)[-1]
        assert last.startswith("11 spans are not in the tags of their sentences (")
        assert "not at the bounds of tokens 1: line 1 [0, 10) PER 'Alice Smit'" in last
        assert "not a span 3: line 1 [-1, -1)  '\"x\"'" in last or "not a span 3" in last

    def test_ends_that_are_the_last_character_are_told(self, tagged: Tagged) -> None:
        content = lines_of(*[{"text": TEXT, "spans": [[0, 10, "PER"], [21, 25, "LOC"]]}] * 3)
        note = "spans that would fit if their end were the last character: 6; the end must be"
        assert tagged(content).notes[0].startswith(note)

    @pytest.mark.parametrize(
        ("encoding", "size", "unit"),
        [
            ("utf-8", 1, "bytes of UTF-8"),
            ("utf-16-le", 2, "units of UTF-16, as JavaScript and Java do"),
        ],
    )
    def test_other_units_are_told(
        self, tagged: Tagged, encoding: str, size: int, unit: str
    ) -> None:
        text = "\U0001f600 in Genève and Paris"
        start = len(text[: text.index("Paris")].encode(encoding)) // size
        reading = tagged(lines_of(*[{"text": text, "spans": [[start, start + 5, "LOC"]]}] * 3))
        assert reading.notes[0] == (
            f"spans that would fit if they counted {unit}: 3; they must count characters"
        )
        assert len(reading.aside) == 3

    def test_objects_as_spans(self, tagged: Tagged) -> None:
        spans = [{"start_offset": 0, "end_offset": 11, "label": "PER", "id": 4}]
        reading = tagged(lines_of({"text": TEXT, "entities": spans, "id": 1}))
        assert reading.examples[0].tags[:3] == ("B-PER", "I-PER", "O")
        assert reading.columns["spans"] == "'entities'"

    def test_a_text_inside_an_object(self, tagged: Tagged) -> None:
        content = lines_of({"data": {"text": "Al is", "spans": [[0, 2, "PER"]]}})
        assert "no field holds tokens or a text" in message(lambda: tagged(content))
        reading = tagged(content, text="data.text", spans="data.spans")
        assert reading.examples[0].tags == ("B-PER", "O")

    def test_tokens_that_are_given_with_a_text(self, tagged: Tagged) -> None:
        good = {"text": "New York is", "tokens": ["New", "York", "is"], "spans": [[0, 8, "LOC"]]}
        reading = tagged(lines_of(good, {**good, "tokens": ["New", "is"]}))
        assert reading.examples[0].tags == ("B-LOC", "I-LOC", "O")
        assert reading.dropped == {"the tokens are not those of the text": 1}

    def test_spans_of_tokens(self, tagged: Tagged) -> None:
        reading = tagged(lines_of({"tokens": ["New", "York", "is"], "spans": [[0, 2, "LOC"]]}))
        assert reading.examples[0].tags == ("B-LOC", "I-LOC", "O")
        assert reading.notes == (
            "without a text, spans count tokens; the end is the token after the last",
        )

    def test_scripts_without_spaces_are_cut_into_characters(self, tagged: Tagged) -> None:
        content = lines_of({"text": "我在北京", "spans": [[2, 4, "LOC"]]})
        reading = tagged(content)
        assert reading.examples[0].tags == ("O", "O", "B-LOC", "I-LOC")
        assert reading.columns["cut into"] == "characters"
        assert tagged(content, split="words").aside[0].reason == "not at the bounds of tokens"

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"tags": "ner"}, "there is no field 'ner'; set tags to one of 'tokens', 'id'"),
            ({}, "no field holds tags or spans; set tags (with tokens) or spans (with text)"),
        ],
    )
    def test_missing_fields(self, tagged: Tagged, options: dict[str, str], problem: str) -> None:
        content = lines_of({"tokens": ["a"], "id": "x"})
        assert problem in message(lambda: tagged(content, **options))
        assert "no field holds tokens or a text" in message(lambda: tagged(lines_of({"id": "x"})))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "this file is empty (0 bytes)"),
        ("a fine film\t1\na bad film\t0\n", "this is neither a token and its columns a line"),
        ("It was the best.\nIt was not the worst of all.\n", "for texts with a label each use"),
        (" \tO\n\n \tO\n", "none of its 2 records can be used (empty token 2: line 1, line 3)"),
        (b"PAR1\0\0\0\0", "cannot be read as Parquet"),
        ('[["a text", {"entities": [[0, 1, "X"]]}]]', "neither JSON Lines nor an array of objects"),
    ],
)
def test_what_is_no_tagged_file(tagged: Tagged, content: str | bytes, problem: str) -> None:
    assert problem in message(lambda: tagged(content))


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = str(tmp_path / "file")
    names = {"feature": {"names": ["O", "B-PER"], "_type": "ClassLabel"}, "_type": "Sequence"}
    metadata = {b"huggingface": json.dumps({"info": {"features": {"ner_tags": names}}}).encode()}
    table = pyarrow.table(
        {"tokens": [["Al", "is"], ["x"], [b"\xe9"]], "ner_tags": [[1, 0], [0], [0]]}
    )
    parquet.write_table(table.replace_schema_metadata(metadata), path)
    reading = read_tagged_sentences(path, TaggedOptions())
    assert [(one.tokens, one.tags, one.place) for one in reading.examples] == [
        (("Al", "is"), ("B-PER", "O"), "row 0"),
        (("x",), ("O",), "row 1"),
    ]
    assert reading.dropped == {"invalid characters": 1}
    assert "'ner_tags': numbers are read as the names" in reading.notes[0]
    notes: list[str] = []
    found = list(read_untagged(path, TaggedOptions(), notes.append))
    assert [(one.tokens, one.problem) for one in found] == [
        (("Al", "is"), ""),
        (("x",), ""),
        ((), "invalid characters"),
    ]
    assert notes == [f"{path}: Parquet; tokens: 'tokens'"]
    parquet.write_table(
        pyarrow.table({"text": ["Al is"], "spans": [[{"start": 0, "end": 2, "label": "PER"}]]}),
        path,
    )
    assert read_tagged_sentences(path, TaggedOptions()).examples[0].tags == ("B-PER", "O")
    assert "this is a Parquet file; set format=auto" in message(
        lambda: read_tagged_sentences(path, TaggedOptions(format="conll"))
    )


@pytest.mark.parametrize(
    ("name", "read", "tags"),
    [("conll2003/eng.testa", 3250, 6), ("weibo-ner/weiboNER_2nd_conll.dev", 270, 17)],
)
def test_real_files(name: str, read: int, tags: int) -> None:
    data = os.environ.get("BILOOM_TEST_DATA")
    if not data:
        pytest.skip("BILOOM_TEST_DATA names no folder of test data")
    reading = read_tagged_sentences(f"{data}/labelled/{name}", TaggedOptions())
    assert (reading.read, reading.dropped) == (read, {})
    assert len({tag for one in reading.examples for tag in one.tags}) == tags
