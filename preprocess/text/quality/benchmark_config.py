"""Settings of decontamination: the benchmarks whose texts must not be in the corpus."""

import re

from pydantic import Field, field_validator

from preprocess.section import Section, runtime
from preprocess.text.quality.config import Files

_NAME = re.compile(r"[\w.-]+")


class Benchmark(Section):
    """The files of a benchmark, and which of their columns have its texts."""

    path: Files = Field(description="path or URL of a file of texts, or a list of these")
    text: str | None = Field(
        None,
        description="column or field of the text: a name, or the number of a column, from 1; null: "
        "guessed, and told",
    )
    pair: str | None = Field(None, description="column or field of a second text of each item")

    @property
    def paths(self) -> tuple[str, ...]:
        """``path`` as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path


class DecontaminationConfig(Section):
    """Removal of documents that share an n-gram of words with a benchmark."""

    benchmarks: dict[str, Files | Benchmark] = runtime(
        {},
        "files of each benchmark by its name, such as {sst2: sst2/dev.tsv}: a path, a list of paths, or "
        "{path: ..., text: COLUMN, pair: COLUMN}; in the formats of `biloom classify predict`",
    )
    ngram: int = Field(
        13,
        ge=2,
        le=100,
        description="words that a document and an item must share in a row, for the document to be "
        "dropped as 'contaminated_NAME'",
    )
    min_words: int = Field(
        8,
        ge=2,
        description="an item with fewer words than `ngram`, but at least this many, is searched as a "
        "whole; shorter ones are not searched",
    )

    @field_validator("benchmarks")
    @classmethod
    def _named(cls, benchmarks: dict[str, Files | Benchmark]) -> dict[str, Files | Benchmark]:
        for name in benchmarks:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"'{name}' is no name of a benchmark; use letters, digits, '_', '-' and '.'"
                )
        return benchmarks

    @property
    def shortest(self) -> int:
        """Fewest words of an item that is searched."""
        return min(self.min_words, self.ngram)

    @property
    def named(self) -> dict[str, Benchmark]:
        """``benchmarks`` with their settings."""
        return {
            name: given if isinstance(given, Benchmark) else Benchmark(path=given)
            for name, given in self.benchmarks.items()
        }
