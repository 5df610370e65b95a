"""Settings of cleaning, filters and the removal of near-duplicates."""

from difflib import get_close_matches
from typing import Literal

from pydantic import Field, field_validator, model_validator

from preprocess.section import Section
from preprocess.text.quality.config import (
    C4Config,
    FineWebConfig,
    GopherQualityConfig,
    GopherRepetitionConfig,
    RefinedWebLinesConfig,
    UrlConfig,
)
from preprocess.text.script_ranges import SCRIPT_RANGES

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
"""All splits. Arrays store a split as its index in this tuple."""


class CleaningConfig(Section):
    """How a text is cleaned before it is hashed and tokenised, in training and embedding."""

    invalid_bytes: Literal["replace", "drop"] = Field(
        "replace",
        description="bytes that are invalid in the file's encoding: replace them with U+FFFD, or drop "
        "the document",
    )
    unicode: Literal["NFC", "NFKC", "none"] = Field(
        "NFC", description="Unicode normalisation form; none: unchanged"
    )
    control_characters: Literal["remove", "keep"] = Field(
        "remove",
        description="remove: delete control characters (category Cc, except whitespace), lone "
        "surrogates and U+FEFF; keep: only replace lone surrogates with U+FFFD",
    )
    whitespace: Literal["collapse", "keep"] = Field(
        "collapse",
        description="collapse: replace each run of whitespace with one space and strip both ends",
    )


class FilterConfig(Section):
    """Which documents are dropped; by default none. Drops are counted by reason."""

    min_characters: int | None = Field(
        None, ge=1, description="drop documents with fewer characters as 'too_short'; null: off"
    )
    max_characters: int | None = Field(
        None, ge=1, description="drop documents with more characters as 'too_long'; null: off"
    )
    max_repeated_lines: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="largest share of lines that repeat an earlier line of the document; above it, "
        "drop it as 'repeated_lines'; null: off",
    )
    max_symbols: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="largest share of characters other than letters, marks and numbers, whitespace "
        "not counted; above it, drop the document as 'symbols'; null: off",
    )
    scripts: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Unicode scripts to keep, such as Latin or Han; drop other documents as "
        "'script'; null: off",
    )
    min_script_share: float = Field(
        0.5, gt=0, le=1, description="smallest share of a document's letters in `scripts`"
    )
    languages: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="languages to keep, as ISO 639 codes of fastText's lid.176 such as en; drop "
        "other documents as 'language'; null: off",
    )
    min_language_score: float | None = Field(
        None,
        gt=0,
        le=1,
        description="least score of a document's most likely language, from 0 to 1; below it, drop the "
        "document as 'language_score'; null: off",
    )
    urls: UrlConfig | None = Field(
        None, description="lists of URLs and domains whose documents are dropped; null: off"
    )
    gopher_quality: GopherQualityConfig | None = Field(
        None, description="quality rules of Gopher; {}: with its limits; null: off"
    )
    gopher_repetition: GopherRepetitionConfig | None = Field(
        None, description="repetition rules of Gopher; {}: with its limits; null: off"
    )
    refinedweb_lines: RefinedWebLinesConfig | None = Field(
        None, description="removal of boilerplate lines as for RefinedWeb; null: off"
    )
    c4: C4Config | None = Field(
        None, description="rules of C4, which remove lines and drop documents; null: off"
    )
    fineweb: FineWebConfig | None = Field(
        None, description="rules that FineWeb added; {}: with its limits; null: off"
    )

    @field_validator("scripts")
    @classmethod
    def _known_scripts(cls, scripts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for script in scripts or ():
            if script not in SCRIPT_RANGES:
                near = get_close_matches(script.title(), SCRIPT_RANGES, n=1)
                hint = f"did you mean '{near[0]}'?" if near else "see Unicode's Scripts.txt"
                raise ValueError(f"Unicode has no script '{script}'; {hint}")
        return scripts

    @model_validator(mode="after")
    def _something_passes(self) -> "FilterConfig":
        least, most = self.min_characters, self.max_characters
        if least is not None and most is not None and least > most:
            raise ValueError("min_characters is above max_characters, so no document can pass")
        if self.min_language_score is not None and self.languages is None:
            raise ValueError(
                "min_language_score is set without languages; name the languages to keep"
            )
        return self


class NearDuplicateConfig(Section):
    """Detection of near-duplicates by MinHash, an estimate: texts are not compared directly."""

    similarity: float | None = Field(
        None,
        ge=0.5,
        le=0.99,
        description="drop a document as 'near_duplicate' if the estimated Jaccard similarity of its "
        "character 5-grams and those of an earlier document that is kept is at least this; null: off",
    )
    seed: int = Field(1, description="seed of the hash functions")
