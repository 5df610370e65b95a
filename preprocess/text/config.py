"""Config sections for what is done to a text: cleaning, filters and near-duplicates."""

from difflib import get_close_matches
from typing import Literal

from pydantic import Field, field_validator, model_validator

from preprocess.section import Section
from preprocess.text.script_ranges import SCRIPT_RANGES

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class CleaningConfig(Section):
    """What happens to a document's text before it is hashed and tokenised, at training and at embedding."""

    invalid_bytes: Literal["replace", "drop"] = Field(
        "replace",
        description="bytes that are no text in the file's encoding: U+FFFD for them, or drop the "
        "document",
    )
    unicode: Literal["NFC", "NFKC", "none"] = Field("NFC", description="Unicode normalisation form")
    control_characters: Literal["remove", "keep"] = Field(
        "remove",
        description="Unicode categories Cc (but tab, line ends and other whitespace) and Cs, and "
        "U+FEFF; keep: only Cs goes, which no file can hold, as U+FFFD",
    )
    whitespace: Literal["collapse", "keep"] = Field(
        "collapse", description="runs of any whitespace to one space, none at the ends"
    )


class FilterConfig(Section):
    """Which documents are dropped, each with its reason counted; none by default."""

    min_characters: int | None = Field(
        None, ge=1, description="shorter ones are dropped as 'too_short'"
    )
    max_characters: int | None = Field(
        None, ge=1, description="longer ones are dropped as 'too_long'"
    )
    max_repeated_lines: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="'repeated_lines': share of a document's lines that repeat an earlier one of it",
    )
    max_symbols: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="'symbols': share of characters, without spaces, that are no letters, marks or "
        "numbers",
    )
    scripts: tuple[str, ...] | None = Field(
        None, min_length=1, description="'script': the scripts wanted, as 'Latin' or 'Han'"
    )
    min_script_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of a document's letters in the scripts wanted below which it is dropped",
    )
    languages: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="'language': ISO 639 codes of the languages wanted, as fastText's lid.176 has them",
    )

    @field_validator("scripts")
    @classmethod
    def _known_scripts(cls, scripts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for script in scripts or ():
            if script not in SCRIPT_RANGES:
                near = get_close_matches(script.title(), SCRIPT_RANGES, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else " (names as in Scripts.txt)"
                raise ValueError(f"Unicode has no script '{script}'{hint}")
        return scripts

    @model_validator(mode="after")
    def _something_passes(self) -> "FilterConfig":
        least, most = self.min_characters, self.max_characters
        if least is not None and most is not None and least > most:
            raise ValueError("min_characters is above max_characters: no document can pass")
        return self


class NearDuplicateConfig(Section):
    """Documents that are almost equal, by MinHash LSH: a good guess, the texts are not compared."""

    similarity: float | None = Field(
        None,
        ge=0.5,
        le=0.99,
        description="Jaccard similarity of the sets of character 5-grams at which a pair is found with "
        "probability 0.75 or more, and the later one dropped as 'near_duplicate'; none: off",
    )
    seed: int = Field(1, description="seed of the hash functions")
