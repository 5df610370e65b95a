"""Settings of the published sets of rules, of lists of URLs and of the masks of personal data.

The defaults are the published thresholds. In a config, an empty mapping turns a set on with them::

    filters: {gopher_quality: {}, c4: {terminal_punctuation: false}}
"""

import unicodedata

from pydantic import Field, field_validator, model_validator

from preprocess.section import Section, runtime

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""The stop words of Rae et al. (2021)."""


class GopherQualityConfig(Section):
    """Quality rules of Gopher (Rae et al. 2021, appendix A.1.1)."""

    min_words: int | None = Field(
        50, ge=1, description="fewest words of a document ('gopher_too_few_words'); null: off"
    )
    max_words: int | None = Field(
        100_000, ge=1, description="most words of a document ('gopher_too_many_words'); null: off"
    )
    min_mean_word_length: float | None = Field(
        3,
        gt=0,
        description="least mean length of a word in letters and digits "
        "('gopher_mean_word_length'); null: off",
    )
    max_mean_word_length: float | None = Field(
        10,
        gt=0,
        description="largest mean length of a word in letters and digits "
        "('gopher_mean_word_length'); null: off",
    )
    max_symbols_per_word: float | None = Field(
        0.1,
        ge=0,
        description="most hash signs per word ('gopher_hash_signs'), and most ellipses per word "
        "('gopher_ellipses'); null: off",
    )
    max_bullet_lines: float | None = Field(
        0.9,
        ge=0,
        le=1,
        description="largest share of lines that start with a bullet ('gopher_bullet_lines'); null: off",
    )
    max_ellipsis_lines: float | None = Field(
        0.3,
        ge=0,
        le=1,
        description="largest share of lines that end with an ellipsis ('gopher_ellipsis_lines'); null: "
        "off",
    )
    min_alphabetic_words: float | None = Field(
        0.8,
        ge=0,
        le=1,
        description="least share of words with a letter ('gopher_alphabetic_words'); null: off",
    )
    min_stop_words: int | None = Field(
        2,
        ge=1,
        description="fewest different words of `stop_words` in a document ('gopher_stop_words'); null: off",
    )
    stop_words: tuple[str, ...] = Field(
        STOP_WORDS,
        min_length=1,
        description="stop words of the language, in the case in which they must occur",
    )

    @model_validator(mode="after")
    def _something_passes(self) -> "GopherQualityConfig":
        for what in ("words", "mean_word_length"):
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{what} is above max_{what}, so no document can pass")
        different = len(set(self.stop_words))
        if (self.min_stop_words or 0) > different:
            raise ValueError(
                f"min_stop_words is {self.min_stop_words}, but stop_words has {different} different "
                "words, so no document can pass"
            )
        return self


class GopherRepetitionConfig(Section):
    """Repetition rules of Gopher (Rae et al. 2021, appendix A.1.1, table A1)."""

    max_duplicate_lines: float | None = Field(
        0.3,
        ge=0,
        le=1,
        description="largest share of lines that repeat an earlier line of the document "
        "('gopher_duplicate_lines'); null: off",
    )
    max_duplicate_paragraphs: float | None = Field(
        0.3,
        ge=0,
        le=1,
        description="the same for paragraphs, which blank lines separate "
        "('gopher_duplicate_paragraphs'); null: off",
    )
    max_duplicate_line_characters: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="largest share of characters in such lines ('gopher_duplicate_line_characters'); "
        "null: off",
    )
    max_duplicate_paragraph_characters: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="largest share of characters in such paragraphs "
        "('gopher_duplicate_paragraph_characters'); null: off",
    )
    max_top_ngrams: tuple[float, float, float] | None = Field(
        (0.20, 0.18, 0.16),
        description="largest shares of characters in the most frequent 2-, 3- and 4-gram of words "
        "('gopher_top_2_gram', ...); null: off",
    )
    max_duplicate_ngrams: tuple[float, float, float, float, float, float] | None = Field(
        (0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
        description="largest shares of characters in repeated 5- to 10-grams of words "
        "('gopher_duplicate_5_grams', ...); null: off",
    )

    @field_validator("max_top_ngrams", "max_duplicate_ngrams")
    @classmethod
    def _shares(cls, shares: tuple[float, ...] | None) -> tuple[float, ...] | None:
        for share in shares or ():
            if not 0 <= share <= 1:
                raise ValueError(f"{share} is not a share from 0 to 1")
        return shares


class C4Config(Section):
    """Rules of C4 (Raffel et al. 2020, section 2.2). Lines are removed first, then documents dropped."""

    citations: bool = Field(
        True, description="remove citation marks such as [3] and [edit] from lines ('c4_citations')"
    )
    terminal_punctuation: bool = Field(
        True,
        description="remove lines that do not end with a terminal punctuation mark or a quotation mark "
        "('c4_no_terminal_punctuation')",
    )
    min_words: int | None = Field(
        5, ge=1, description="remove lines with fewer words ('c4_short_line'); null: off"
    )
    max_word_length: int | None = Field(
        1000,
        ge=1,
        description="remove lines with a word of more characters ('c4_long_word'); null: off",
    )
    javascript: bool = Field(
        True, description="remove lines with the word JavaScript ('c4_javascript')"
    )
    policy: bool = Field(
        True,
        description="remove lines about terms of use, privacy and cookies, in English ('c4_policy')",
    )
    lorem_ipsum: bool = Field(
        True, description="drop documents with the words 'lorem ipsum' ('c4_lorem_ipsum')"
    )
    curly_brackets: bool = Field(
        True, description="drop documents with a curly bracket ('c4_curly_bracket')"
    )
    min_sentences: int | None = Field(
        3,
        ge=1,
        description="drop documents whose remaining lines have fewer sentences "
        "('c4_too_few_sentences'); null: off",
    )
    bad_words: str | None = runtime(
        None,
        "file or URL with a word or phrase a line; drop documents that contain one ('c4_bad_words'); "
        "null: off",
    )


class FineWebConfig(Section):
    """Rules that FineWeb added (Penedo et al. 2024, section 3.6)."""

    min_punctuated_lines: float | None = Field(
        0.12,
        ge=0,
        le=1,
        description="least share of lines that end with a terminal punctuation mark "
        "('fineweb_punctuated_lines'); null: off",
    )
    max_duplicate_line_characters: float | None = Field(
        0.1,
        ge=0,
        le=1,
        description="largest share of characters in lines that repeat an earlier line "
        "('fineweb_duplicate_line_characters'); null: off",
    )
    max_short_lines: float | None = Field(
        0.67,
        ge=0,
        le=1,
        description="largest share of lines of at most `short_line` characters "
        "('fineweb_short_lines'); null: off",
    )
    short_line: int = Field(30, ge=1, description="characters of a short line")


class RefinedWebLinesConfig(Section):
    """Removal of boilerplate lines as for RefinedWeb (Penedo et al. 2023, appendix G.2)."""

    max_uppercase: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description="remove lines with a larger share of capitals among their letters "
        "('refinedweb_uppercase'); null: off",
    )
    numbers: bool = Field(True, description="remove lines without letters ('refinedweb_numbers')")
    counters: bool = Field(
        True, description="remove lines such as '3 likes' ('refinedweb_counter')"
    )
    single_words: bool = Field(
        True, description="remove lines of one word ('refinedweb_single_word')"
    )
    phrases: bool = Field(
        True,
        description="remove lines of up to 10 words that start with 'sign in', end with 'read more' or "
        "contain 'items in cart' ('refinedweb_phrase')",
    )
    max_removed_words: float | None = Field(
        0.05,
        ge=0,
        le=1,
        description="drop documents of whose words a larger share is in such lines "
        "('refinedweb_removed_words'); null: off",
    )


Files = str | tuple[str, ...]
"""A path or URL, or a list of these."""


class UrlConfig(Section):
    """Lists of URLs of unwanted documents. The URL of a document is its id, if that is one."""

    folders: Files | None = runtime(
        None,
        "folder, or list of folders, with files named domains and urls, as in the lists of the "
        "University of Toulouse; packed files end with .gz, .bz2, .xz or .zst",
    )
    domains: Files | None = runtime(
        None,
        "file, or list of files, with a domain a line; its subdomains count too ('url_domain')",
    )
    urls: Files | None = runtime(
        None, "file, or list of files, with a URL a line, with or without https:// ('url')"
    )
    words: Files | None = runtime(
        None,
        "file, or list of files, with a word a line; a URL is cut into words at all characters but "
        "letters and digits ('url_word')",
    )

    @model_validator(mode="after")
    def _names_a_list(self) -> "UrlConfig":
        if not any((self.folders, self.domains, self.urls, self.words)):
            raise ValueError("no list is named; set folders, domains, urls or words")
        return self


class MaskConfig(Section):
    """Replacement of personal data, found by pattern. Counted by kind."""

    email: str | None = Field(
        None, description="text that replaces e-mail addresses, such as <email>; null: they stay"
    )
    ip: str | None = Field(
        None, description="text that replaces IP addresses, of version 4 and 6; null: they stay"
    )
    phone: str | None = Field(None, description="text that replaces phone numbers; null: they stay")

    @field_validator("email", "ip", "phone")
    @classmethod
    def _one_line(cls, text: str | None) -> str | None:
        if text is None:
            return None
        if not text or text != " ".join(text.split()) or not text.isprintable():
            raise ValueError(
                f"{text!r} must be printable text, with single spaces between its words only"
            )
        if unicodedata.category(text[0]).startswith("M"):
            raise ValueError(f"{text!r} must not start with a combining mark")
        return text
