"""Settings of the readers of labelled files."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from preprocess.config import known_encoding
from preprocess.section import Section

LabelledFormat = Literal[
    "auto", "tsv", "csv", "fasttext", "label-first", "jsonl", "json", "parquet"
]
TaggedFormat = Literal["auto", "conll", "conllu", "jsonl", "json", "parquet"]


SEPARATORS = {"pipe": "|", "space": " ", "tab": "\t"}
"""Names of separators that YAML and shells do not take as they are."""


class LabelledTextOptions(Section):
    """How to read texts with labels; by default, everything is found from the content."""

    format: LabelledFormat = Field(
        "auto",
        description="tsv or csv: a table; fasttext: words with __label__ are labels; label-first: the "
        "first word of a line is its label; auto: found from the content",
    )
    text: str | None = Field(
        None,
        description="column or field of the text: a name, or the number of a column, from 1; null: "
        "guessed, and told",
    )
    pair: str | None = Field(None, description="column or field of the second text of a pair")
    label: str | None = Field(None, description="column or field of the label of a text")
    labels: str | None = Field(
        None,
        description="column or field of any number of labels, instead of label; or columns with commas "
        "between them, such as toxic,obscene, that hold 1 or 0 for one label each",
    )
    separator: str | None = Field(
        None,
        min_length=1,
        description="what separates labels in a column or field of strings, such as ','; pipe, space and "
        "tab name what a command line cannot; null: a string is one label",
    )
    target: Literal["auto", "single", "several", "number"] = Field(
        "auto",
        description="what a text has: one label, any number of labels, or a number; auto: several "
        "if the file has lists of labels or `labels` is set, otherwise single",
    )
    header: Literal["auto", "yes", "no"] = Field(
        "auto", description="whether the first line of a table holds the names of its columns"
    )
    strip_labels: bool = Field(
        False, description="remove spaces around labels; otherwise ' a' and 'a' are two labels"
    )
    encoding: Annotated[str, AfterValidator(known_encoding)] = Field(
        "auto", description="encoding of the file; auto: UTF-8, or the likely encoding if it is not"
    )


class TaggedOptions(Section):
    """How to read sentences with a tag for each token; by default, found from the content."""

    format: TaggedFormat = Field(
        "auto", description="conll: a token and its columns a line; auto: found from the content"
    )
    tokens: str | None = Field(
        None,
        description="column or field of the tokens: a name, or the number of a column, from 1; null: "
        "the first column, FORM in CoNLL-U",
    )
    tags: str | None = Field(
        None,
        description="column or field of the tags, by name or number; FEATS:Number is an attribute "
        "inside a column of CoNLL-U; null: the last column, UPOS in CoNLL-U",
    )
    text: str = Field("text", description="field of the text that spans refer to, in JSON")
    spans: str | None = Field(
        None, description="field of the spans, in JSON; null: spans, entities, labels or label"
    )
    split: Literal["auto", "words", "spaces", "characters"] = Field(
        "auto",
        description="how a text with spans is cut into tokens; words: runs of letters and digits, and "
        "single punctuation marks; auto: characters if the texts are mostly in a script without "
        "spaces, otherwise words",
    )
    positions: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="whether each token of a CoNLL file ends with its position in a word, from 0, as "
        "in Weibo NER, which is then removed",
    )
    encoding: Annotated[str, AfterValidator(known_encoding)] = Field(
        "auto", description="encoding of the file; auto: UTF-8, or the likely encoding if it is not"
    )


class ColumnOptions(TaggedOptions):
    """`TaggedOptions` in which `column` is another name for `tags`."""

    column: str | None = Field(
        None,
        description="column or field of the tags, by name or by number from 1: another name for `tags`; "
        "null: the last column, UPOS in CoNLL-U",
    )

    @model_validator(mode="after")
    def _one_column(self) -> Self:
        if self.column is not None and self.tags is not None:
            raise ValueError("column and tags name the same column; set one of them")
        return self

    @property
    def reading(self) -> TaggedOptions:
        """How files are read."""
        given = {name: getattr(self, name) for name in TaggedOptions.model_fields}
        return TaggedOptions(**{**given, "tags": self.column or self.tags})
