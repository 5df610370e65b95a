"""Config sections of the data stages, and the base every section shares.

A config is data: frozen, validated once, never written back. Values derived from it are functions
of it, next to what they describe.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SPLITS = ("train", "valid", "test")
Split = Literal["train", "valid", "test"]


class Section(BaseModel):
    """A frozen group of settings in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def runtime(default: Any, description: str, **limits: Any) -> Any:
    """A field that changes how a result is made and never what it is, so no fingerprint holds it."""
    return Field(
        default, description=description, json_schema_extra={"changes_result": False}, **limits
    )


def result_fields(section: Section, prefix: str) -> dict[str, Any]:
    """The settings of ``section`` that change its result, flat: ``{"prepare.cleaning.unicode": "NFC"}``."""
    flat: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("changes_result") is False:
            continue
        value = getattr(section, name)
        if isinstance(value, Section):
            flat.update(result_fields(value, f"{prefix}.{name}"))
        else:
            flat[f"{prefix}.{name}"] = value
    return flat


class SentencePieceConfig(Section):
    """Subwords by SentencePiece: any script, any text, no unknown words (bytes are the fallback)."""

    kind: Literal["sentencepiece"] = "sentencepiece"
    model: Literal["unigram", "bpe"] = Field("unigram", description="SentencePiece algorithm")
    vocabulary: int = Field(
        8000, ge=300, description="pieces wanted; a small corpus gives fewer", le=16_000_000
    )
    character_coverage: float = Field(
        0.9995, gt=0, le=1, description="share of characters with a piece; the rest become bytes"
    )
    sample_bytes: int = Field(
        100_000_000, ge=1, description="text to learn from, in bytes, drawn from the train split"
    )
    seed: int = Field(1, description="seed of that sample")


class WordConfig(Section):
    """Whitespace-separated words, every type of the train split with an id."""

    kind: Literal["word"] = "word"
    min_count: int = Field(1, ge=1, description="a rarer type becomes the unknown word")


TokenizerConfig = Annotated[SentencePieceConfig | WordConfig, Field(discriminator="kind")]


class CleaningConfig(Section):
    """What happens to a document's text before it is hashed and tokenised, at training and at embedding."""

    invalid_utf8: Literal["replace", "drop"] = Field(
        "replace", description="bytes that are not UTF-8: U+FFFD for them, or drop the document"
    )
    unicode: Literal["NFC", "NFKC", "none"] = Field("NFC", description="Unicode normalisation form")
    control_characters: Literal["remove", "keep"] = Field(
        "remove",
        description="Unicode categories Cc (but tab, line ends and other whitespace) and Cs, and U+FEFF",
    )
    whitespace: Literal["collapse", "keep"] = Field(
        "collapse", description="runs of any whitespace to one space, none at the ends"
    )


class Source(Section):
    """One named part of a corpus."""

    name: str = Field("corpus", min_length=1, description="name in manifests and reports")
    path: str | tuple[str, ...] = Field(
        description="path, glob or fsspec URL, a list of them, or 'installed-docs:'"
    )
    format: Literal["auto", "text", "jsonl", "docstrings"] = Field(
        "auto",
        description="text: a document a line; jsonl: an object a line; docstrings: the prose of "
        "Python sources; auto: by the name",
    )
    text_field: str = Field("text", description="jsonl: the key that holds the text")
    split: Split | None = Field(
        None, description="the split all of it belongs to; none: drawn by content hash"
    )
    license: str | None = Field(None, description="its licence, carried to manifest and model card")

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path


class PrepareConfig(Section):
    """Raw text to token shards."""

    input: str | tuple[str | Source, ...] = Field(
        description="path, glob or URL of the raw text, or a list of them or of sources"
    )
    tokenizer: str | None = runtime(None, "tokenizer folder; none: this run's own")
    cleaning: CleaningConfig = Field(CleaningConfig(), description="cleaning of every document")
    drop_empty: bool = Field(True, description="drop documents without text")
    deduplicate: bool = Field(True, description="keep the first of equal documents")
    valid_fraction: float = Field(0.01, ge=0, lt=1, description="share of documents held out")
    test_fraction: float = Field(0.0, ge=0, lt=1, description="share held out a second time")
    part_tokens: int = Field(
        4_000_000, ge=1, description="tokens after which a shard is closed at a document's end"
    )
    unit_bytes: int | None = Field(
        None,
        ge=1024,
        description="raw bytes a work unit; none: 8 MB below 256 MB of input, else 32",
    )

    @model_validator(mode="after")
    def _room_for_training(self) -> "PrepareConfig":
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction and test_fraction leave nothing to train on")
        return self

    @model_validator(mode="after")
    def _one_name_a_source(self) -> "PrepareConfig":
        names = [source.name for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sources are named '{twice[0]}'; give each its own name")
        return self

    @property
    def sources(self) -> tuple[Source, ...]:
        entries = (self.input,) if isinstance(self.input, str) else self.input
        plain = tuple(entry for entry in entries if isinstance(entry, str))
        named = tuple(entry for entry in entries if isinstance(entry, Source))
        return ((Source(path=plain),) if plain else ()) + named
