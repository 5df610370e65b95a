"""Stage: a sample of the train split -> tokenizer; all of the corpus where words are counted."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.config.schema import Config
from pipeline.console import Bar, Console, count
from pipeline.lifecycle.registry import BEAM, input_sources
from pipeline.lifecycle.stage import Made, StageError, StageFolder, require
from preprocess.config import SentencePieceConfig, WordConfig
from preprocess.files.manifest import FileRecord, hash_file
from preprocess.reading.units import Unit, plan_units
from preprocess.tokenizers.coverage import SAMPLE_BYTES, coverage, coverage_rows
from preprocess.tokenizers.load import Tokenizer, train_tokenizer
from preprocess.tokenizers.sample import READ_BYTES, draw_sample, read_train, thin, unit_bytes
from preprocess.tokenizers.subwords import SentencePieceTokenizer, read_sentencepiece

JUDGED_SEED = 1
"""Of the sample that shows how the tokenizer takes to the corpus."""


def make(config: Config, place: StageFolder, console: Console) -> Made:
    sources, files = input_sources(config)
    units = plan_units(sources, files, config.prepare.unit_bytes)
    if not sum(map(unit_bytes, units)):
        paths = ", ".join(path for source in sources for path in source.paths)
        raise StageError(f"{paths}: holds no document; give prepare.input some text")
    tokenizer, figures, judged = _make(config, units, place, console)
    names = tokenizer.save(place.folder)
    console.line(
        f"{tokenizer.vocabulary:,} ids ({tokenizer.kind}) of {count(figures['documents'])} "
        f"documents, {count(figures['bytes'])}B"
    )
    found = coverage(tokenizer, judged)
    console.table("tokenizer on the corpus", ["measure", "value"], coverage_rows(found))
    _tell_losses(tokenizer, found, console)
    console.line("longest: " + "  ".join(piece[:40] for piece in found["longest"][:10]))
    records = tuple(FileRecord(name, *hash_file(place.file(name))) for name in names)
    details = {
        "kind": tokenizer.kind,
        "vocabulary": tokenizer.vocabulary,
        "sample": figures,
        "coverage": found,
    }
    return Made(records, details, stats=details)


def _make(
    config: Config, units: Sequence[Unit], place: StageFolder, console: Console
) -> tuple[Tokenizer, dict[str, int], list[str]]:
    """The tokenizer, what it was made of, and texts to judge it by."""
    settings = config.tokenizer
    if isinstance(settings, WordConfig):
        require("tokenizer", BEAM)
        from pipeline.beam.word_count_job import count_corpus

        words, figures = count_corpus(config, settings, units, place, console)
        return words, figures, _some(config, units, console).held
    if isinstance(settings, SentencePieceConfig) and settings.file:
        given = read_sentencepiece(settings.file)
        texts = _some(config, units, console)
        return given, texts.figures, texts.held
    texts = _Texts(config, units, settings.sample_bytes, settings.seed, READ_BYTES)
    with console.bar("tokenizer", texts.size) as bar:
        made = train_tokenizer(settings, texts.read(bar))
    return made, texts.figures, texts.held


def _some(config: Config, units: Sequence[Unit], console: Console) -> "_Texts":
    """Texts to judge a tokenizer by that was not learnt here; they need not be from all over."""
    texts = _Texts(config, units, SAMPLE_BYTES, JUDGED_SEED, least_read=0)
    with console.bar("sample", texts.size) as bar:
        for _ in texts.read(bar):
            pass
    return texts


def _tell_losses(tokenizer: Tokenizer, found: dict[str, Any], console: Console) -> None:
    if not isinstance(tokenizer, SentencePieceTokenizer):
        return
    if not tokenizer.has_bytes:
        console.warn("the model has no byte pieces: what it cannot spell becomes the unknown word")
    if found["restored"] is not None and found["restored"] < 1:
        console.warn(
            f"{1 - found['restored']:.2%} of the texts are not what their tokens spell: the model "
            "has a normaliser of its own, beside prepare.cleaning, or leaves characters out"
        )


class _Texts:
    """A sample of the train split, gone through once; some of it is held to judge a tokenizer by."""

    def __init__(
        self, config: Config, units: Sequence[Unit], wanted: int, seed: int, least_read: int
    ) -> None:
        self._config, self._seed = config.prepare, seed
        self._sample = draw_sample(units, config.prepare, wanted, seed, least_read)
        self.size = sum(map(unit_bytes, self._sample.units))
        due = sum(unit_bytes(u) * self._sample.kept[u.source] for u in self._sample.units)
        self._share = min(1.0, SAMPLE_BYTES / due) if due else 1.0
        self.figures = {"bytes": 0, "documents": 0}
        self.held: list[str] = []

    def read(self, bar: Bar) -> Iterator[str]:
        last: Unit | None = None
        passed = held = 0
        for unit, _, text, content in read_train(self._sample.units, self._config):
            if unit is not last:
                passed += unit_bytes(last) if last else 0
                last = unit
                bar.update(passed, "reading")
            if self._sample.holds(unit, content, self._seed):
                size = len(text.encode())
                self.figures["bytes"] += size
                self.figures["documents"] += 1
                # Packed input is larger than its size says.
                if held < 2 * SAMPLE_BYTES and thin(content, self._share, self._seed + 1):
                    held += size
                    self.held.append(text)
                yield text
        bar.update(self.size, "learning")
