"""What the data stages accept, and which of it a fingerprint holds."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from preprocess.config import (
    CharConfig,
    PrepareConfig,
    SentencePieceConfig,
    Source,
    TokenizerConfig,
    WordConfig,
)
from preprocess.section import Section, result_fields, runtime
from preprocess.text.config import CleaningConfig


def test_a_section_is_frozen_and_knows_its_keys() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CleaningConfig().unicode = "NFKC"
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        PrepareConfig(input="x", inputs="y")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "model", [CleaningConfig, PrepareConfig, SentencePieceConfig, Source, WordConfig]
)
def test_every_setting_is_described(model: type[Section]) -> None:
    fields = {name: field for name, field in model.model_fields.items() if name != "kind"}
    assert [name for name, field in fields.items() if not field.description] == []


def test_settings_that_change_no_result_are_in_no_fingerprint() -> None:
    class Inner(Section):
        speed: int = runtime(1, "how fast", ge=1)
        depth: int = 2

    class Outer(Section):
        inner: Inner = Inner()
        name: str = "x"

    assert result_fields(Outer(), "outer") == {"outer.inner.depth": 2, "outer.name": "x"}
    with pytest.raises(ValidationError):
        Inner(speed=0)
    fields = result_fields(PrepareConfig(input="a"), "prepare")
    assert "prepare.tokenizer" not in fields
    assert fields["prepare.cleaning.unicode"] == "NFC"
    assert fields["prepare.part_tokens"] == 4_000_000


def test_plain_paths_are_one_source_before_those_with_a_name() -> None:
    assert PrepareConfig(input="a").sources == (Source(path=("a",)),)
    given: Any = ["a", {"name": "n", "path": "b", "split": "test", "license": "CC0"}, "c"]
    sources = PrepareConfig(input=given).sources
    assert [(s.name, s.paths, s.split, s.license) for s in sources] == [
        ("corpus", ("a", "c"), None, None),
        ("n", ("b",), "test", "CC0"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"valid_fraction": 0.5, "test_fraction": 0.5},
            "valid_fraction and test_fraction leave nothing to train on",
        ),
        (
            {"input": ["a", {"path": "b"}]},
            "two sources are named 'corpus'; give each its own name",
        ),
        ({"input": [{"name": "", "path": "b"}]}, "at least 1 character"),
        ({"part_tokens": 0}, "greater than or equal to 1"),
        ({"unit_bytes": 100}, "greater than or equal to 1024"),
    ],
)
def test_what_cannot_be_prepared_is_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PrepareConfig(**{"input": "a", **settings})


def test_a_tokenizer_is_chosen_by_its_kind() -> None:
    adapter: TypeAdapter[TokenizerConfig] = TypeAdapter(TokenizerConfig)
    assert adapter.validate_python({"kind": "word"}) == WordConfig()
    assert adapter.validate_python({"kind": "sentencepiece"}) == SentencePieceConfig()
    assert adapter.validate_python({"kind": "char"}) == CharConfig()
    with pytest.raises(ValidationError, match="'sentencepiece', 'char', 'word'"):
        adapter.validate_python({"kind": "letters"})
    with pytest.raises(ValidationError, match="greater than or equal to 300"):
        adapter.validate_python({"kind": "sentencepiece", "vocabulary": 299})


def test_an_encoding_goes_by_its_one_name() -> None:
    names = {"UTF8": "utf-8", "utf_8_sig": "utf-8", "Latin-1": "iso8859-1", "GB18030": "gb18030"}
    assert {name: Source(path="x", encoding=name).encoding for name in names} == names


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("klingon", "Python knows no encoding 'klingon'"),
        ("rot13", "'rot13' is no encoding of text"),
        ("hex", "'hex' is no encoding of text"),
        ("idna", "'idna' is no encoding of text"),
        ("unicode_escape", "'unicode_escape' is no encoding of text"),
    ],
)
def test_what_is_no_encoding_of_text_is_refused(encoding: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Source(path="x", encoding=encoding)
