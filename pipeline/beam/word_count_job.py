"""Count the words of a corpus of any size in a Beam job, and write the vocabulary."""

from collections.abc import Sequence
from typing import Any

from pipeline.beam.job import run_job
from pipeline.beam.transforms import CountWords
from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle.stage import StageFolder
from pipeline.phases import COLLECTING, phase
from preprocess.config import WordConfig
from preprocess.files.storage import atomic_writer, join
from preprocess.reading.kinds.missing_text import why_no_text
from preprocess.reading.plan_file import write_plan
from preprocess.reading.units import Unit
from preprocess.tokenizers.base import TokenizerError
from preprocess.tokenizers.sample import unit_bytes
from preprocess.tokenizers.vocabulary import Vocabulary, write_vocabulary
from preprocess.tokenizers.word_counts import (
    CountJob,
    merged_words,
    read_counted,
    read_inputs,
    word_buckets,
)
from preprocess.tokenizers.words import INDEX, NO_WORD, TEXT, WordTokenizer


def count_corpus(
    config: Config,
    settings: WordConfig,
    units: Sequence[Unit],
    place: StageFolder,
    console: Console,
) -> tuple[WordTokenizer, dict[str, int], list[dict[str, Any]]]:
    """Return a word tokenizer of the train split, the size of the split, and what was read.

    The size has the keys "documents" and "bytes". What was read are rows of
    `preprocess.reading.changed_inputs.ranges_read`.

    Args:
        config: the config; its runner runs the job.
        settings: settings of the tokenizer.
        units: units of the whole input.
        place: folder of the tokenizer stage. The vocabulary is written into its unfinished work.
        console: where progress is shown.

    Raises:
        TokenizerError: the train split has no word.
    """
    total = sum(map(unit_bytes, units))
    job = CountJob(place.work, config.prepare, settings.min_count, word_buckets(total), len(units))
    write_plan(place.work, units)
    steps = CountWords(job)
    run_job(config.runner, place.work, console, "tokenizer", total, len(units), steps)
    with phase(COLLECTING):
        figures = read_counted(job)
        inputs = list(read_inputs(job))
    console.line("writing the vocabulary")
    text, index = (join(place.work, name) for name in (TEXT, INDEX))
    with (
        phase("writing the vocabulary"),
        atomic_writer(text) as words,
        atomic_writer(index) as numbers,
    ):
        if not (figures["documents"] and write_vocabulary(merged_words(job), words, numbers)):
            raise TokenizerError(NO_WORD + why_no_text(units, config.prepare.sources))
    return WordTokenizer(Vocabulary.open(text, index)), figures, inputs
