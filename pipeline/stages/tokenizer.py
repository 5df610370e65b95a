"""The tokenizer stage: a sample of the train split -> tokenizer.

A word tokenizer counts the words of the whole train split, in a Beam job.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.config.schema import Config
from pipeline.console import Bar, Console, count
from pipeline.lifecycle.inputs import input_sources, no_documents
from pipeline.lifecycle.registry import BEAM
from pipeline.lifecycle.stage import Made, StageError, StageFolder, require
from preprocess.config import HuggingFaceConfig, SentencePieceConfig, TokenizerConfig, WordConfig
from preprocess.files.manifest import content_hash
from preprocess.reading.changed_inputs import INPUTS, write_inputs
from preprocess.reading.kinds.missing_text import why_no_text
from preprocess.reading.units import Unit, plan_units
from preprocess.tokenizers.coverage import SAMPLE_BYTES, coverage, coverage_rows
from preprocess.tokenizers.huggingface.tokenizer import HuggingFaceTokenizer, read_huggingface
from preprocess.tokenizers.load import Tokenizer, train_tokenizer
from preprocess.tokenizers.sample import READ_BYTES, thin, train_units, unit_bytes
from preprocess.tokenizers.subwords import SentencePieceTokenizer, read_sentencepiece
from preprocess.tokenizers.text_sample import WHOLE, sample_text
from preprocess.tokenizers.words import WordTokenizer

SPACED_SHARE = 0.5
"""If a smaller share of the characters is in documents with spaces between words,
``tokenizer.kind=word`` shows a warning."""
RARE_SHARE, FEW_WORDS = 0.85, 1000
"""A warning is shown if at least this share of the distinct words occur once, these are at least half of
all words, and there are at least this many distinct words. In languages with spaces between words, 60
to 80 % of the distinct words occur once."""
COVERAGE_SEED = 1
"""Seed of the sample on which a tokenizer that was not trained here is measured."""


def make(config: Config, place: StageFolder, console: Console) -> Made:
    """Train or copy the tokenizer, and measure its coverage of the corpus.

    Raises:
        StageError: there is no text.
        UserError: the tokenizer cannot be trained or read.
    """
    sources, files, _ = input_sources(config, console)
    units = plan_units(sources, files, config.prepare.unit_bytes)
    if not sum(map(unit_bytes, units)):
        raise no_documents(config)
    inputs: list[dict[str, Any]] = []
    tokenizer, figures, texts = _make(config, units, place, console, inputs)
    names = tokenizer.save(place.unpublished)
    console.line(
        f"{tokenizer.vocabulary:,} ids ({tokenizer.kind}); read {count(figures['documents'])} "
        f"documents, {count(figures['bytes'])}B"
    )
    measured = coverage(tokenizer, texts)
    console.table("coverage of the corpus", ["measure", "value"], coverage_rows(measured))
    _warn_about_losses(tokenizer, measured, console)
    console.line("longest tokens: " + "  ".join(t[:40] for t in measured["longest"][:10]))
    write_inputs(place.unpublished, inputs)
    records = tuple(place.record(name) for name in names)
    details = {
        "kind": tokenizer.kind,
        "vocabulary": tokenizer.vocabulary,
        "sample": figures,
        "coverage": measured,
    }
    all_files = (*records, place.record(INPUTS))
    return Made(all_files, details, stats=details, content=content_hash(records))


def _make(
    config: Config,
    units: Sequence[Unit],
    place: StageFolder,
    console: Console,
    inputs: list[dict[str, Any]],
) -> tuple[Tokenizer, dict[str, int], list[str]]:
    """Return the tokenizer, the size of the text that was read, and texts to measure coverage on.

    The rows of what was read are added to ``inputs``.
    """
    settings = config.tokenizer
    given = _given(settings)
    if not given and not train_units(units, config.prepare):
        raise StageError(
            "prepare.input has no text to learn a tokenizer from: all its sources are of split valid "
            "or test; add a source without split, or of split: train"
        )
    if isinstance(settings, WordConfig):
        require("tokenizer", BEAM)
        from pipeline.beam.word_count_job import count_corpus

        words, figures, counted = count_corpus(config, settings, units, place, console)
        inputs += counted
        return words, figures, _read_sample(config, units, console, inputs).held
    if given:
        texts = _read_sample(config, units, console, inputs)
        return given, texts.figures, texts.held
    assert not isinstance(settings, HuggingFaceConfig), "its file is given"
    texts = _Texts(config, units, settings.sample_bytes, settings.seed, READ_BYTES, inputs)
    with console.bar("tokenizer", texts.size) as bar:
        made = train_tokenizer(settings, texts.read(bar))
    return made, texts.figures, texts.held


def _given(settings: TokenizerConfig) -> Tokenizer | None:
    """Return the tokenizer in the file that the settings name, None if they name none."""
    if isinstance(settings, HuggingFaceConfig):
        return read_huggingface(settings.given)
    if isinstance(settings, SentencePieceConfig) and settings.file:
        return read_sentencepiece(settings.file)
    return None


def _read_sample(
    config: Config, units: Sequence[Unit], console: Console, inputs: list[dict[str, Any]]
) -> "_Texts":
    """Read texts to measure coverage on, for a tokenizer that was not trained on a sample."""
    texts = _Texts(config, units, SAMPLE_BYTES, COVERAGE_SEED, 0, inputs)
    with console.bar("sample", texts.size) as bar:
        for _ in texts.read(bar):
            pass
    return texts


def _warn_about_losses(tokenizer: Tokenizer, measured: dict[str, Any], console: Console) -> None:
    if isinstance(tokenizer, WordTokenizer) and (warning := _rare_words_warning(measured)):
        console.warn(warning)
    if isinstance(tokenizer, SentencePieceTokenizer) and not tokenizer.has_bytes:
        console.warn(
            "the SentencePiece model has no byte pieces, so characters that it lacks become the "
            "unknown token"
        )
    if isinstance(tokenizer, HuggingFaceTokenizer) and tokenizer.drops_characters:
        console.warn(
            "the tokenizer.json has no unknown token and no byte tokens, so characters that it lacks "
            "are dropped"
        )
    if measured["restored"] is not None and measured["restored"] < 1:
        what = "tokenizer.json" if tokenizer.kind == "huggingface" else "SentencePiece model"
        console.warn(
            f"{1 - measured['restored']:.2%} of the texts cannot be restored from their tokens: the "
            f"{what} normalises text in addition to prepare.cleaning, or drops characters"
        )


def _rare_words_warning(measured: dict[str, Any]) -> str | None:
    """Return a warning if a text seems to have no spaces between its words, else None."""
    once, used = measured["once"], measured["used"]
    has_spaces = measured["spaced"] is None or measured["spaced"] >= SPACED_SHARE
    is_rare = used >= FEW_WORDS and once >= RARE_SHARE * used and 2 * once >= measured["tokens"]
    if has_spaces and not is_rare:
        return None
    return (
        f"{once:,} of the {used:,} distinct words of the sample occur once, so a model cannot learn "
        "them; if the text has no spaces between words, set tokenizer.kind to sentencepiece or char"
    )


class _Texts:
    """A sample of the train split, read once.

    Attributes:
        size: raw bytes to read, approximately.
        figures: bytes and documents of the sample that were read.
        held: texts of the sample that are kept to measure the tokenizer's coverage on.
    """

    def __init__(
        self,
        config: Config,
        units: Sequence[Unit],
        wanted: int,
        seed: int,
        least_read: int,
        inputs: list[dict[str, Any]],
    ) -> None:
        self._inputs = inputs
        self._config, self._units = config.prepare, units
        self._wanted, self._seed, self._least_read = wanted, seed, least_read
        total = sum(map(unit_bytes, train_units(units, config.prepare)))
        self.size = min(total, max(least_read, WHOLE * wanted))
        self.figures = {"bytes": 0, "documents": 0}
        self.held: list[str] = []

    def read(self, bar: Bar) -> Iterator[str]:
        """Yield the texts of the sample."""
        drawn = sample_text(
            self._units,
            self._config,
            self._wanted,
            self._seed,
            self._least_read,
            lambda raw: bar.update(min(raw, self.size), "reading"),
            self._inputs,
        )
        if not drawn and (why := why_no_text(self._units, self._config.sources)):
            raise StageError(f"the train split has no text{why}")
        size = sum(len(text.encode()) for _, text in drawn)
        self.figures = {"bytes": size, "documents": len(drawn)}
        share = min(1.0, SAMPLE_BYTES / size) if size else 1.0
        self.held = [text for content, text in drawn if thin(content, share, self._seed + 1)]
        bar.update(self.size, "training")
        drawn.reverse()
        while drawn:  # texts are released here, because the trainer also holds them
            yield drawn.pop()[1]
