"""Validation of the data stages' settings, and which of them are in the fingerprint."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from preprocess.config import (
    CharConfig,
    HuggingFaceConfig,
    PrepareConfig,
    SentencePieceConfig,
    Source,
    TokenizerConfig,
    WordConfig,
)
from preprocess.section import Section, result_fields, runtime
from preprocess.text.config import CleaningConfig


def test_a_section_is_immutable_and_refuses_unknown_keys() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CleaningConfig().unicode = "NFKC"
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        PrepareConfig(input="x", inputs="y")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "model",
    [
        *(CleaningConfig, PrepareConfig, SentencePieceConfig, HuggingFaceConfig),
        *(CharConfig, Source, WordConfig),
    ],
)
def test_every_setting_is_described(model: type[Section]) -> None:
    fields = {name: field for name, field in model.model_fields.items() if name != "kind"}
    assert [name for name, field in fields.items() if not field.description] == []


def test_runtime_settings_are_not_in_the_fingerprint() -> None:
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
    assert fields["prepare.shard_tokens"] == 4_000_000
    assert "prepare.part_tokens" not in fields


def test_plain_paths_form_the_first_source() -> None:
    assert PrepareConfig(input="a").sources == (Source(path=("a",)),)
    entries: Any = ["a", {"name": "n", "path": "b", "split": "test", "license": "CC0"}, "c"]
    sources = PrepareConfig(input=entries).sources
    assert [(s.name, s.paths, s.split, s.license) for s in sources] == [
        ("corpus", ("a", "c"), None, None),
        ("n", ("b",), "test", "CC0"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"valid_fraction": 0.5, "test_fraction": 0.5},
            "valid_fraction and test_fraction must sum to less than 1",
        ),
        (
            {"input": ["a", {"path": "b"}]},
            r"two sources are named 'corpus' \(as is a source without a name, and all plain paths "
            r"together\); give each its own name, as in \{name: news, path: 'b'\}",
        ),
        ({"input": [{"path": "a"}, {"path": ["b"]}]}, "named 'corpus' .*path: 'b'"),
        (
            {"input": [{"name": "x", "path": "a"}, {"name": "x", "path": "b"}]},
            "two sources are named 'x'; give each its own name, as in {name: news, path: 'b'}",
        ),
        ({"input": [{"name": "", "path": "b"}]}, "at least 1 character"),
        ({"part_tokens": 0}, "greater than or equal to 1"),
        ({"shard_tokens": 0}, "greater than or equal to 1"),
        ({"unit_bytes": 100}, "greater than or equal to 1024"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PrepareConfig(**{"input": "a", **settings})


def test_a_tokenizer_is_chosen_by_its_kind() -> None:
    adapter: TypeAdapter[TokenizerConfig] = TypeAdapter(TokenizerConfig)
    assert adapter.validate_python({"kind": "word"}) == WordConfig()
    assert adapter.validate_python({"kind": "sentencepiece"}) == SentencePieceConfig()
    assert adapter.validate_python({"kind": "char"}) == CharConfig()
    with pytest.raises(ValidationError, match="'sentencepiece', 'char', 'huggingface', 'word'"):
        adapter.validate_python({"kind": "letters"})
    with pytest.raises(ValidationError, match="greater than or equal to 300"):
        adapter.validate_python({"kind": "sentencepiece", "vocabulary": 299})


def test_spellings_of_an_encoding_are_unified() -> None:
    names = {
        "UTF8": "utf-8",
        "utf_8_sig": "utf-8",
        "Latin-1": "iso8859-1",
        "GB18030": "gb18030",
        "auto": "auto",
    }
    assert {name: Source(path="x", encoding=name).encoding for name in names} == names


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("klingon", "'klingon' is not an encoding that Python knows; 'auto' detects the encoding"),
        ("rot13", "'rot13' is not a text encoding"),
        ("hex", "'hex' is not a text encoding"),
        ("idna", "'idna' is not a text encoding"),
        ("unicode_escape", "'unicode_escape' is not a text encoding"),
    ],
)
def test_encodings_that_are_not_of_text_are_refused(encoding: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Source(path="x", encoding=encoding)
