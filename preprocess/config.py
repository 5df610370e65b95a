"""Settings of the `tokenizer` and `prepare` stages and of the sources of a corpus."""

import codecs
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from preprocess.errors import UserError
from preprocess.section import Section, runtime
from preprocess.text.config import CleaningConfig, FilterConfig, NearDuplicateConfig, Split
from preprocess.text.quality.benchmark_config import DecontaminationConfig
from preprocess.text.quality.config import MaskConfig
from preprocess.text.template import parse_template


class SentencePieceConfig(Section):
    """SentencePiece subwords for any script; rare characters become bytes, so nothing is unknown."""

    kind: Literal["sentencepiece"] = "sentencepiece"
    model: Literal["unigram", "bpe"] = Field("unigram", description="SentencePiece algorithm")
    vocabulary: int = Field(
        8000, ge=300, le=16_000_000, description="pieces to learn; a small corpus gives fewer"
    )
    character_coverage: float = Field(
        0.9995, gt=0, le=1, description="share of characters with a piece; rarer ones become bytes"
    )
    sample_bytes: int = Field(
        100_000_000, ge=1, description="bytes of the random sample of training text to learn from"
    )
    seed: int = Field(1, description="seed of the sample")
    file: str | None = Field(
        None, description="path or URL of a SentencePiece .model file to use; null: learn one"
    )


class CharConfig(Section):
    """Single characters; rare characters become bytes, so no character is unknown."""

    kind: Literal["char"] = "char"
    character_coverage: float = Field(
        0.9999, gt=0, le=1, description="share of characters with an id; rarer ones become bytes"
    )
    sample_bytes: int = Field(
        100_000_000, ge=1, description="bytes of the random sample of training text to learn from"
    )
    seed: int = Field(1, description="seed of the sample")


class HuggingFaceConfig(Section):
    """A tokenizer.json of Hugging Face, which is used as it is; nothing is learnt."""

    kind: Literal["huggingface"] = "huggingface"
    file: str | None = Field(
        None, description="path or URL of the tokenizer.json; must be set; needs biloom[hf]"
    )

    @property
    def given(self) -> str:
        """The value of ``file``.

        Raises:
            UserError: it is null. A kind has a default for every setting, so null must be valid.
        """
        if not self.file:
            raise UserError(
                "tokenizer.file is missing: tokenizer.kind=huggingface needs the path or URL of a "
                "tokenizer.json"
            )
        return self.file


class WordConfig(Section):
    """Whitespace-separated words, the most frequent of the train split first."""

    kind: Literal["word"] = "word"
    min_count: int = Field(
        1,
        ge=1,
        description="words that occur fewer times than this in the train split become <unk>; 1: all "
        "words are kept",
    )


TokenizerConfig = Annotated[
    SentencePieceConfig | CharConfig | HuggingFaceConfig | WordConfig, Field(discriminator="kind")
]


def known_encoding(encoding: str) -> str:
    """Return Python's name of a text encoding, or "auto".

    Raises:
        ValueError: Python knows no such text encoding.
    """
    if encoding == "auto":
        return encoding
    try:
        known = codecs.lookup(encoding)
    except LookupError as error:
        raise ValueError(
            f"'{encoding}' is not an encoding that Python knows; 'auto' detects the encoding"
        ) from error
    # Python counts escapes of host names and of its own literals as text encodings.
    escape = known.name.startswith(("idna", "punycode", "undefined", "unicode", "raw"))
    if escape or not known._is_text_encoding:
        raise ValueError(f"'{encoding}' is not a text encoding")
    # The reader drops a byte order mark at the start of every file.
    return "utf-8" if known.name == "utf-8-sig" else known.name


Format = Literal[
    "text",
    "jsonl",
    "json",
    "csv",
    "parquet",
    "arrow",
    "html",
    "warc",
    "wiki",
    "conllu",
    "docstrings",
]
"""See the table of formats in docs/corpus.md."""


class Source(Section):
    """A named part of a corpus, with its own files, format and settings."""

    name: str = Field("corpus", min_length=1, description="name in manifests and reports; unique")
    path: str | tuple[str, ...] = Field(
        description="path, folder, glob or fsspec URL of the files, or a list of these; 'installed-docs:' "
        "is the documentation of the installed Python packages"
    )
    format: Literal["auto", Format] = Field(
        "auto",
        description="file format; jsonl: one JSON object per line; csv: also TSV; docstrings: prose in "
        "Python sources; auto: detected from content and name; text: any content is read as text",
    )
    document: Literal["line", "paragraph", "file"] = Field(
        "line", description="what a document is in text files; a paragraph ends at a blank line"
    )
    text_field: str = Field(
        "text",
        description="field (JSON) or column (tables) of the text; 'a.b' is the field b of the object or "
        "struct a, 'a[]' joins the items of the list a; a number for a table without a header",
    )
    template: str | None = Field(
        None,
        description="text made of several fields, in braces, as in '{title} {body}'; in place of "
        "text_field; null: text_field",
    )
    id_field: str | None = Field(
        None,
        description="field or column of an id, as text_field, which `biloom trace` and "
        "dropped-*.jsonl show; a web page's id is its URL",
    )
    encoding: str = Field(
        "utf-8",
        description="encoding of text and jsonl files; a byte order mark overrides it; auto: UTF-8 if "
        "a file is in UTF-8, otherwise its likely encoding, which needs biloom[encodings]",
    )
    split: Split | None = Field(
        None, description="split of all its documents; null: by the hash of each document's text"
    )
    weight: float = Field(
        1.0,
        gt=0,
        description="sampling weight; the source's share is proportional to weight x "
        "size^prepare.sampling_alpha",
    )
    license: str | None = Field(None, description="licence, copied to manifest and model card")
    cleaning: CleaningConfig | None = Field(
        None, description="cleaning of this source; null: as prepare.cleaning"
    )
    filters: FilterConfig | None = Field(
        None, description="filters of this source; null: as prepare.filters"
    )

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        return known_encoding(encoding)

    @model_validator(mode="after")
    def _one_way_to_the_text(self) -> "Source":
        if self.template is not None:
            parse_template(self.template)
            if self.text_field != type(self).model_fields["text_field"].default:
                raise ValueError("set either text_field or template, not both")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """``path`` as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path


Input = str | tuple[str | Source, ...]
"""A path, folder, glob or URL, or a list of these and of sources."""


def sources_of(given: Input) -> tuple[Source, ...]:
    """Return the sources of an input; all plain paths together are the first, named "corpus"."""
    entries = (given,) if isinstance(given, str) else given
    plain = tuple(entry for entry in entries if isinstance(entry, str))
    named = tuple(entry for entry in entries if isinstance(entry, Source))
    return ((Source(path=plain),) if plain else ()) + named


def check_names(sources: Sequence[Source]) -> None:
    """Raise ValueError if two sources have the same name."""
    names = [source.name for source in sources]
    for last, source in enumerate(sources):
        if source.name in names[:last]:
            unnamed = ""
            if source.name == Source.model_fields["name"].default:
                unnamed = " (as is a source without a name, and all plain paths together)"
            raise ValueError(
                f"two sources are named '{source.name}'{unnamed}; give each its own name, as in "
                f"{{name: news, path: '{source.paths[0]}'}}"
            )


class PrepareConfig(Section):
    """Settings of the `prepare` stage, which turns raw text into token shards."""

    input: Input | None = Field(
        None,
        description="path, folder, glob or fsspec URL of the raw text, or a list of these and of sources",
    )
    tokenizer: str | None = runtime(None, "tokenizer folder; null: the tokenizer of this run")
    cleaning: CleaningConfig = Field(CleaningConfig(), description="how documents are cleaned")
    filters: FilterConfig = Field(FilterConfig(), description="which documents are dropped")
    mask: MaskConfig = Field(
        MaskConfig(), description="which personal data are replaced in the text, and by what"
    )
    decontamination: DecontaminationConfig = Field(
        DecontaminationConfig(), description="benchmarks whose texts must not be in the corpus"
    )
    drop_empty: bool = Field(True, description="drop documents that are empty after cleaning")
    deduplicate: bool = Field(
        True, description="keep only the first of several documents with equal cleaned text"
    )
    near_duplicates: NearDuplicateConfig = Field(
        NearDuplicateConfig(), description="how documents that are almost equal are dropped"
    )
    known: str | tuple[str, ...] | None = runtime(
        None,
        "folder or URL of a finished corpus (`prepare` of another run), or a list of these; documents "
        "that it has are dropped as 'known', near-duplicates as 'known_near_duplicate'",
    )
    keep_keys: bool = runtime(
        True,
        "save hashes of the documents, so that other corpora can name this one in `known`; 8 bytes a "
        "document, and with near_duplicates.similarity 0.8 80 bytes",
    )
    keep_dropped: bool = Field(
        False, description="save the text of all dropped documents, not only unreadable records"
    )
    damaged_files: Literal["stop", "skip"] = Field(
        "stop",
        description="if a file is not text or cannot be read to its end; stop: stop with an error; "
        "skip: keep what could be read, and count the file",
    )
    max_document_bytes: int = Field(
        16_000_000, ge=1024, description="bytes above which a record is dropped as 'oversized'"
    )
    max_expansion: int = Field(
        1000,
        ge=1,
        description="a compressed file that unpacks to more than this many times its size, and to "
        "over 256 MB, counts as damaged",
    )
    sampling_alpha: float = Field(
        1.0,
        ge=0,
        le=1,
        description="exponent of a source's size in its share of training and of the tokenizer "
        "sample; 1: in proportion to size, 0: by weight only",
    )
    valid_fraction: float = Field(0.01, ge=0, lt=1, description="share of documents for validation")
    test_fraction: float = Field(
        0.0, ge=0, lt=1, description="share of documents for the test split"
    )
    held_out_documents: int = Field(
        200_000,
        ge=1,
        description="approximate maximum of documents in the valid split, and in the test split; the "
        "documents of the corpus are estimated from a sample of 16 MB",
    )
    shard_tokens: int = Field(
        4_000_000,
        ge=1,
        description="maximum tokens of a shard, and maximum number of its documents; a longer document is a "
        "shard of its own. Parts of several units are joined; a worker holds 2 to 4 bytes per token and split",
    )
    part_tokens: int = runtime(
        4_000_000,
        ge=1,
        description="tokens after which the first pass writes what it holds in memory to the work "
        "folder; a killed run resumes there",
    )
    unit_bytes: int | None = Field(
        None,
        ge=1024,
        description="raw bytes of a work unit, the input of one worker call; null: up to 8 MiB, or "
        "up to 32 MiB if the input has 2 GiB or more",
    )

    @model_validator(mode="after")
    def _room_for_training(self) -> "PrepareConfig":
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction and test_fraction must sum to less than 1")
        return self

    @model_validator(mode="after")
    def _unique_source_names(self) -> "PrepareConfig":
        if self.input is not None:
            check_names(self.sources)
        return self

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of ``input``; all plain paths together are the first, named "corpus".

        Raises:
            UserError: if there is no input. Commands that read no raw text do not need one.
        """
        if self.input is None:
            meaning = type(self).model_fields["input"].description
            raise UserError(
                f"prepare.input is missing: set it in a file or as prepare.input=... ({meaning})"
            )
        return sources_of(self.input)

    @property
    def known_corpora(self) -> tuple[str, ...]:
        """``known`` as a tuple."""
        return (self.known,) if isinstance(self.known, str) else self.known or ()

    def cleaning_of(self, source: Source) -> CleaningConfig:
        """Return the cleaning settings of ``source``; by default, these are ``self.cleaning``."""
        return source.cleaning or self.cleaning

    def filters_of(self, source: Source) -> FilterConfig:
        """Return the filter settings of ``source``; by default, these are ``self.filters``."""
        return source.filters or self.filters
