"""Any content is read, counted, or refused with a message."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocess.errors import UserError
from preprocess.reading.labelled import content
from preprocess.reading.labelled.inputs import read_texts, read_untagged
from preprocess.reading.labelled.options import LabelledTextOptions, TaggedOptions
from preprocess.reading.labelled.tagged import read_tagged_sentences
from preprocess.reading.labelled.texts import read_labelled_texts

PIECES = (
    *(b"text", b"label", b"\t", b",", b"\n", b"\r\n", b'"', b" ", b"a", b"B-X", b"O", b"1", b"0"),
    *(b"__label__a", b'{"text": "a", "label": "b"}', b'{"text": "a b", "spans": [[0, 1, "X"]]}'),
    *(b'{"tokens": ["a"], "tags": ["O"]}', b"[", b"{", b"\xff", b"\0", "é".encode(), b"#", b"-"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b\x08", b"PAR1"),
)
ANYTHING = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANYTHING)
def test_any_content(tmp_path: Path, data: bytes) -> None:
    path = str(tmp_path / "file")
    Path(path).write_bytes(data)
    with suppress(UserError):
        texts = read_labelled_texts(path, LabelledTextOptions())
        assert texts.read == len(texts.examples) + sum(texts.dropped.values())
        assert all(one.text.strip() for one in texts.examples)
    with suppress(UserError):
        tagged = read_tagged_sentences(path, TaggedOptions())
        assert tagged.read == len(tagged.examples) + sum(tagged.dropped.values())
        assert all(len(one.tokens) == len(one.tags) > 0 for one in tagged.examples)
    with suppress(UserError):
        inputs = list(read_texts(path, LabelledTextOptions(), str))
        assert all(bool(one.text) != bool(one.problem) for one in inputs)
    with suppress(UserError):
        sentences = list(read_untagged(path, TaggedOptions(), str))
        assert all(bool(one.tokens) != bool(one.problem) for one in sentences)


def test_an_encoding_without_chardet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from preprocess.reading.encodings.likely import likely_encoding

    likely_encoding.cache_clear()
    monkeypatch.setitem(sys.modules, "chardet", None)
    (tmp_path / "file").write_bytes(b"a\tcaf\xe9\nb\tth\xe9\n" * 9)
    with pytest.raises(
        UserError, match=r"18 lines are not UTF-8, and their encoding is not known; set"
    ):
        read_labelled_texts(str(tmp_path / "file"), LabelledTextOptions())


def test_no_likely_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "likely_encoding", lambda sample: None)
    (tmp_path / "file").write_bytes(b"a\t\xff\nb\tc\n" * 3)
    with pytest.raises(
        UserError, match=r"3 lines are not UTF-8, and no other encoding is likely; set"
    ):
        read_labelled_texts(str(tmp_path / "file"), LabelledTextOptions())


def test_a_wrong_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "file")
    Path(path).write_bytes(b"a\n\xff\xfetext\n")
    with pytest.raises(UserError, match="no other encoding is likely"):
        read_labelled_texts(path, LabelledTextOptions())

    def fail(chunks: list[bytes], encoding: str) -> list[bytes]:
        raise UnicodeError("too many escapes")

    monkeypatch.setattr(content, "to_utf8", fail)
    options = LabelledTextOptions(encoding="utf-7")
    match = r"cannot be read as utf-7 \(too many escapes\); set encoding to the right one"
    with pytest.raises(UserError, match=match):
        read_labelled_texts(path, options)
    with pytest.raises(UserError, match=match):
        list(read_texts(path, options, str))
