"""Texts and sentences to predict for: one for each record, in order."""

import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from preprocess.errors import UserError
from preprocess.reading.labelled.examples import InputText, TaggedSentence
from preprocess.reading.labelled.inputs import read_texts, read_untagged
from preprocess.reading.labelled.options import LabelledTextOptions, TaggedOptions

Inputs = Callable[..., tuple[list[InputText], list[str]]]
Untagged = Callable[..., tuple[list[TaggedSentence], list[str]]]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("one, two\nthree\n\nfour", {}),
        ("text,label\n\"one, two\",x\nthree,y\n'',z\nfour,x\n".replace("''", ""), {}),
        ("text\none, two\nthree\n \nfour\n", {"header": "yes"}),
        ("x\tone, two\ny\tthree\nx\t\ny\tfour\n", {"text": "2"}),
        ("__label__x one, two\nthree\n__label__x\nfour __label__y", {}),
        ("x one, two\nx three\nx\ny four\n", {"format": "label-first"}),
        ('{"text": "one, two"}\n{"text": "three"}\n{"text": ""}\n{"text": "four", "id": 1}\n', {}),
        (json.dumps([{"text": text} for text in ("one, two", "three", "", "four")]), {}),
    ],
)
def test_every_record_is_an_input(inputs: Inputs, content: str, options: dict[str, Any]) -> None:
    found, notes = inputs(content, **options)
    wanted = ["one, two", "three", "", "four"]
    if options.get("header"):
        wanted.remove("")  # a blank line of a table is no record
    assert [one.text for one in found] == wanted
    assert [one.problem for one in found if one.problem] == ["empty text"] * ("" in wanted)
    assert notes


def test_lists_are_no_texts(inputs: Inputs) -> None:
    with pytest.raises(
        UserError, match=r"no column holds texts \('tokens', 'n'\); set text to one"
    ):
        inputs('{"tokens": ["a"], "n": []}\n' * 3)


def test_labels_of_the_training_file_are_not_looked_for(inputs: Inputs) -> None:
    for options in ({"label": "kind"}, {"labels": "rude,toxic"}):
        found, _ = inputs("one, two\t1\nthree four\t2\nfive six\t1\n", **options)
        assert found[0].text == "one, two"


def test_problems_keep_their_place(inputs: Inputs) -> None:
    found, notes = inputs(
        '{"text": "a"}\nno JSON\n[1]\n{"text": 3}\n{"x": 1}\n{"text": "\\ud800"}\n'
    )
    assert [(one.place, one.problem) for one in found] == [
        ("line 1", ""),
        ("line 2", "invalid JSON"),
        ("line 3", "not an object"),
        ("line 4", "text is not a string"),
        ("line 5", "no text"),
        ("line 6", "invalid characters"),
    ]
    assert notes[0].endswith(": JSON Lines; text: 'text'")
    assert notes[1] == "not used: x"


def test_lines_with_commas_are_no_table(inputs: Inputs) -> None:
    content = "The quick, brown fox.\n" * 20
    assert inputs(content)[0][0].text == "The quick, brown fox."
    assert inputs(content)[1][0].endswith("plain text, one text a line")


def test_pairs_and_encodings(inputs: Inputs) -> None:
    content = "sentence1\tsentence2\nä\tb\nc\t\n"
    found, _ = inputs(content.encode("utf-16"))
    assert (found[0].text, found[0].pair) == ("ä", "b")
    assert (found[1].problem, found[1].pair) == ("empty second text", None)
    pytest.importorskip("chardet")
    found, notes = inputs("une journée très agréable à la plage\n".encode("cp1252") * 9)
    assert found[8].text == "une journée très agréable à la plage"
    assert "lines that are not UTF-8: 9" in notes[0]


def test_parquet(tmp_path: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": ["a", None]}), tmp_path / "file")
    found = list(read_texts(str(tmp_path / "file"), LabelledTextOptions(), print))
    assert [(one.text, one.place, one.problem) for one in found] == [
        ("a", "row 0", ""),
        ("", "row 1", "no text"),
    ]


@pytest.mark.parametrize("content", ["", "a O\nb O\n\nc O\nd O\n", "%PDF-1.4 "])
def test_what_cannot_be_predicted_for(inputs: Inputs, content: str) -> None:
    with pytest.raises(UserError, match=r"is empty|looks like CoNLL|is a PDF"):
        inputs(content)


class Pipe(io.RawIOBase):
    """Standard input, which gives one chunk at a time and records how many were asked for."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = [*chunks]
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._chunks.pop(0) if self._chunks else b""
        self.taken += bool(data)
        buffer[: len(data)] = data
        return len(data)


def standard_input(monkeypatch: pytest.MonkeyPatch, *chunks: bytes) -> Pipe:
    pipe = Pipe(*chunks)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(pipe)))
    return pipe


def test_standard_input_is_read_as_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = standard_input(monkeypatch, b"a\n", b"b\n\nc", b"d\n", b"e")
    found = read_texts("-", LabelledTextOptions(), lambda note: None)
    assert (next(found).text, pipe.taken) == ("a", 1)
    assert (next(found).text, pipe.taken) == ("b", 2)
    assert [(one.text, one.place) for one in found] == [
        ("", "line 3"),
        ("cd", "line 4"),
        ("e", "line 5"),
    ]


def test_standard_input_may_be_in_any_format(monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    standard_input(monkeypatch, gzip.compress(b'{"text": "a"}\n{"text": "b"}\n'))
    found = read_texts("-", LabelledTextOptions(), lambda note: None)
    assert [one.text for one in found] == ["a", "b"]
    standard_input(monkeypatch, "ä\nb\n".encode("utf-16"))
    found = read_texts("-", LabelledTextOptions(), lambda note: None)
    assert [one.text for one in found] == ["ä", "b"]
    standard_input(monkeypatch)
    assert list(read_texts("-", LabelledTextOptions(), lambda note: None)) == []


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ("Bob's dog.\n\nHe ran.\n", [("Bob", "'", "s", "dog", "."), (), ("He", "ran", ".")]),
        (
            "EU NNP\nx VBZ\n\ny\n\nz NN\nw NN\n\n" + "a b\nb c\nc d\n\n" * 5,
            [("EU", "x"), (), ("z", "w")],
        ),
        ('{"tokens": ["a", "b"]}\n{"tokens": []}\n{"tokens": ["c"]}', [("a", "b"), (), ("c",)]),
        ('{"text": "a-b"}\n{"text": ""}\n{"text": "c"}', [("a", "-", "b"), (), ("c",)]),
        ('[{"words": ["a", "b"]}, 1, {"words": ["c"]}]', [("a", "b"), (), ("c",)]),
    ],
)
def test_sentences_without_tags(
    untagged: Untagged, content: str, tokens: list[tuple[str, ...]]
) -> None:
    found, notes = untagged(content)
    assert [one.tokens for one in found[:3]] == tokens
    assert [bool(one.problem) for one in found[:3]] == [False, True, False]
    assert not any(one.tags for one in found)
    assert notes


def test_sentences_of_text_have_offsets(untagged: Untagged) -> None:
    (one,), notes = untagged("我在 北京")
    assert (one.text, one.offsets) == ("我在 北京", ((0, 1), (1, 2), (3, 4), (4, 5)))
    assert notes[0].endswith("plain text, one sentence a line; cut into characters")
    (one,), _ = untagged("我在 北京", split="spaces")
    assert one.tokens == ("我在", "北京")


def test_universal_dependencies_without_tags(untagged: Untagged) -> None:
    content = "1-2\tal\t_\t_\t_\t_\t_\t_\t_\t_\n1\ta\ta\tADP\t_\t_\t_\t_\t_\t_\n2\tel\tel\tDET\t_\t_\t_\t_\t_\t_\n"
    (one,), notes = untagged(content)
    assert one.tokens == ("a", "el")
    assert notes[1] == "multiword tokens, of which the words are read: 1"


def test_sentences_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    standard_input(monkeypatch, b"a b\n", b"c d\n")
    found = read_untagged("-", TaggedOptions(), lambda note: None)
    assert next(found).tokens == ("a", "b")
    standard_input(monkeypatch, b"a X\nb X\n\nc X\n")
    found = read_untagged("-", TaggedOptions(format="conll"), lambda note: None)
    assert [one.tokens for one in found] == [("a", "b"), ("c",)]


def test_real_files() -> None:
    data = os.environ.get("BILOOM_TEST_DATA")
    if not data:
        pytest.skip("BILOOM_TEST_DATA names no folder of test data")
    notes: list[str] = []
    path = f"{data}/labelled/chnsenticorp/dev.tsv"
    assert len(list(read_texts(path, LabelledTextOptions(), notes.append))) == 1200
    path = f"{data}/raw/ud/gsd-dev-test.tok"
    found = list(read_untagged(path, TaggedOptions(split="spaces"), notes.append))
    assert found[0].tokens[:3] == ("ただし", "、", "50")
