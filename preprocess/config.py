"""Config sections of the data stages: tokenizer, sources and prepare."""

import codecs
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from preprocess.section import Section, runtime
from preprocess.text.config import CleaningConfig, FilterConfig, NearDuplicateConfig, Split


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
    file: str | None = Field(
        None, description="a SentencePiece .model to take instead of learning one; path or URL"
    )


class CharConfig(Section):
    """Single characters; what is too rare for a character of its own becomes bytes."""

    kind: Literal["char"] = "char"
    character_coverage: float = Field(
        0.9999, gt=0, le=1, description="share of the text's characters with an id of their own"
    )
    sample_bytes: int = Field(
        100_000_000, ge=1, description="text to learn from, in bytes, drawn from the train split"
    )
    seed: int = Field(1, description="seed of that sample")


class WordConfig(Section):
    """Whitespace-separated words, every type of the corpus with an id: train's by count, then the rest."""

    kind: Literal["word"] = "word"
    min_count: int = Field(
        1,
        ge=1,
        description="above 1: a type seen less often in the train split becomes the unknown word",
    )


TokenizerConfig = Annotated[
    SentencePieceConfig | CharConfig | WordConfig, Field(discriminator="kind")
]


class Source(Section):
    """One named part of a corpus."""

    name: str = Field("corpus", min_length=1, description="name in manifests and reports")
    path: str | tuple[str, ...] = Field(
        description="path, glob or fsspec URL, a list of them, or 'installed-docs:'"
    )
    format: Literal["auto", "text", "jsonl", "parquet", "docstrings"] = Field(
        "auto",
        description="text; jsonl: an object a line; parquet; docstrings: the prose of Python "
        "sources; auto: by name and content",
    )
    document: Literal["line", "paragraph", "file"] = Field(
        "line", description="text: a document is a line, the lines up to a blank one, or a file"
    )
    text_field: str = Field("text", description="jsonl, parquet: the key or column of the text")
    id_field: str | None = Field(
        None, description="jsonl, parquet: the key or column that names a document kept aside"
    )
    encoding: str = Field(
        "utf-8", description="of text and jsonl; a byte order mark of UTF-16 or UTF-32 goes before"
    )
    split: Split | None = Field(
        None, description="the split all of it belongs to; none: drawn by content hash"
    )
    weight: float = Field(
        1.0,
        gt=0,
        description="its sampling weight, times its size to the power prepare.sampling_alpha",
    )
    license: str | None = Field(None, description="its licence, carried to manifest and model card")
    cleaning: CleaningConfig | None = Field(
        None, description="cleaning of its own; none: prepare.cleaning"
    )
    filters: FilterConfig | None = Field(
        None, description="filters of its own; none: prepare.filters"
    )

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            known = codecs.lookup(encoding)
        except LookupError as error:
            raise ValueError(f"Python knows no encoding '{encoding}'") from error
        # Python counts the spellings of host names and of its own literals among them.
        spelling = known.name.startswith(("idna", "punycode", "undefined", "unicode", "raw"))
        if spelling or not known._is_text_encoding:
            raise ValueError(f"'{encoding}' is no encoding of text")
        # A mark at the start is always dropped, and nowhere else.
        return "utf-8" if known.name == "utf-8-sig" else known.name

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
    filters: FilterConfig = Field(FilterConfig(), description="what is dropped after cleaning")
    drop_empty: bool = Field(True, description="drop documents without text")
    deduplicate: bool = Field(True, description="keep the first of equal documents")
    near_duplicates: NearDuplicateConfig = Field(
        NearDuplicateConfig(), description="keep the first of almost equal documents"
    )
    keep_dropped: bool = Field(
        False, description="keep every dropped document's text aside, not only broken records"
    )
    damaged_files: Literal["stop", "skip"] = Field(
        "stop",
        description="a file that cannot be read to its end: stop, or keep what could be read and "
        "count it",
    )
    max_document_bytes: int = Field(
        16_000_000,
        ge=1024,
        description="a longer record is dropped as 'oversized' without being held in memory",
    )
    max_expansion: int = Field(
        1000,
        ge=1,
        description="a compressed file that unpacks to more than so many times its size (and to "
        "over 256 MB) counts as damaged",
    )
    sampling_alpha: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of a source in samples and epochs ~ weight x size^alpha: 1 as it is, "
        "0 by the weights alone",
    )
    valid_fraction: float = Field(0.01, ge=0, lt=1, description="share of documents held out")
    test_fraction: float = Field(0.0, ge=0, lt=1, description="share held out a second time")
    part_tokens: int = Field(
        4_000_000,
        ge=1,
        description="tokens, of all splits together, after which shards are closed at a document's end",
    )
    unit_bytes: int | None = Field(
        None,
        ge=1024,
        description="raw bytes a work unit; none: at most 8 MB below 2 GB of input, else 32",
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

    def cleaning_of(self, source: Source) -> CleaningConfig:
        """How the documents of ``source`` are cleaned."""
        return source.cleaning or self.cleaning

    def filters_of(self, source: Source) -> FilterConfig:
        """Which documents of ``source`` are dropped."""
        return source.filters or self.filters
