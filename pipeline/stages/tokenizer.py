"""The tokenizer stage: a sample of the train split -> tokenizer.

A word tokenizer counts the words of the whole train split, in a Beam job.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.config.schema import Config
from pipeline.console import Bar, Console, count
from pipeline.lifecycle.registry import BEAM, input_sources, no_documents
from pipeline.lifecycle.stage import Made, StageFolder, require
from preprocess.config import SentencePieceConfig, WordConfig
from preprocess.files.manifest import content_hash
from preprocess.reading.changed_inputs import INPUTS, write_inputs
from preprocess.reading.units import Unit, plan_units
from preprocess.tokenizers.coverage import SAMPLE_BYTES, coverage, coverage_rows
from preprocess.tokenizers.load import Tokenizer, train_tokenizer
from preprocess.tokenizers.sample import READ_BYTES, draw_sample, read_train, thin, unit_bytes
from preprocess.tokenizers.subwords import SentencePieceTokenizer, read_sentencepiece

COVERAGE_SEED = 1
"""Seed of the sample on which a tokenizer that was not trained here is measured."""


def make(config: Config, place: StageFolder, console: Console) -> Made:
    """Train or copy the tokenizer, and measure its coverage of the corpus.

    Raises:
        StageError: there is no text.
        UserError: the tokenizer cannot be trained or read.
    """
    sources, files = input_sources(config)
    units = plan_units(sources, files, config.prepare.unit_bytes)
    if not sum(map(unit_bytes, units)):
        raise no_documents(config)
    inputs: list[dict[str, Any]] = []
    tokenizer, figures, texts = _make(config, units, place, console, inputs)
    names = tokenizer.save(place.folder)
    console.line(
        f"{tokenizer.vocabulary:,} ids ({tokenizer.kind}); read {count(figures['documents'])} "
        f"documents, {count(figures['bytes'])}B"
    )
    measured = coverage(tokenizer, texts)
    console.table("coverage of the corpus", ["measure", "value"], coverage_rows(measured))
    _warn_about_losses(tokenizer, measured, console)
    console.line("longest tokens: " + "  ".join(t[:40] for t in measured["longest"][:10]))
    write_inputs(place.folder, inputs)
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
    if isinstance(settings, WordConfig):
        require("tokenizer", BEAM)
        from pipeline.beam.word_count_job import count_corpus

        words, figures, counted = count_corpus(config, settings, units, place, console)
        inputs += counted
        return words, figures, _read_sample(config, units, console, inputs).held
    if isinstance(settings, SentencePieceConfig) and settings.file:
        tokenizer = read_sentencepiece(settings.file)
        texts = _read_sample(config, units, console, inputs)
        return tokenizer, texts.figures, texts.held
    texts = _Texts(config, units, settings.sample_bytes, settings.seed, READ_BYTES, inputs)
    with console.bar("tokenizer", texts.size) as bar:
        made = train_tokenizer(settings, texts.read(bar))
    return made, texts.figures, texts.held


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
    if not isinstance(tokenizer, SentencePieceTokenizer):
        return
    if not tokenizer.has_bytes:
        console.warn(
            "the SentencePiece model has no byte pieces, so characters that it lacks become the "
            "unknown token"
        )
    if measured["restored"] is not None and measured["restored"] < 1:
        console.warn(
            f"{1 - measured['restored']:.2%} of the texts cannot be restored from their tokens: the "
            "SentencePiece model normalises text in addition to prepare.cleaning, or drops characters"
        )


class _Texts:
    """A sample of the train split, read once.

    Attributes:
        size: raw bytes of the units to read.
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
        self._config, self._seed = config.prepare, seed
        self._sample = draw_sample(units, config.prepare, wanted, seed, least_read)
        self.size = sum(map(unit_bytes, self._sample.units))
        expected = sum(unit_bytes(u) * self._sample.kept[u.source] for u in self._sample.units)
        self._share = min(1.0, SAMPLE_BYTES / expected) if expected else 1.0
        self.figures = {"bytes": 0, "documents": 0}
        self.held: list[str] = []

    def read(self, bar: Bar) -> Iterator[str]:
        """Yield the texts of the sample."""
        last: Unit | None = None
        passed = held = 0
        for unit, _, text, content in read_train(self._sample.units, self._config, self._inputs):
            if unit is not last:
                passed += unit_bytes(last) if last else 0
                last = unit
                bar.update(passed, "reading")
            if self._sample.holds(unit, content, self._seed):
                size = len(text.encode())
                self.figures["bytes"] += size
                self.figures["documents"] += 1
                # Compressed input holds more text than its size suggests.
                if held < 2 * SAMPLE_BYTES and thin(content, self._share, self._seed + 1):
                    held += size
                    self.held.append(text)
                yield text
        bar.update(self.size, "training")
