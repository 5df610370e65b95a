"""The word types of a corpus of any size, counted by a Beam job and merged here."""

from collections.abc import Sequence

from pipeline.beam_job import run_job
from pipeline.config import Config
from pipeline.console import Console
from pipeline.stage import Place
from pipeline.transforms import CountWords
from preprocess.config import WordConfig
from preprocess.corpus_sample import unit_bytes
from preprocess.storage import atomic_writer, join
from preprocess.tokens import TokenizerError
from preprocess.unit_plan import write_plan
from preprocess.units import Unit
from preprocess.vocabulary import Vocabulary, write_vocabulary
from preprocess.word_counts import (
    CountJob,
    count_buckets,
    merged_words,
    read_counted,
)
from preprocess.word_tokenizer import INDEX, NO_WORD, TEXT, WordTokenizer


def count_corpus(
    config: Config, settings: WordConfig, units: Sequence[Unit], place: Place, console: Console
) -> tuple[WordTokenizer, dict[str, int]]:
    """The tokenizer of all words of ``units``, and the train split's documents and bytes.

    Raises:
        TokenizerError: there is no word.
    """
    total = sum(map(unit_bytes, units))
    job = CountJob(place.work, config.prepare, settings.min_count, count_buckets(total), len(units))
    write_plan(place.work, units)
    steps = CountWords(job, len(units))
    run_job(config.runner, place.work, console, "tokenizer", total, len(units), steps)
    figures = read_counted(job)
    console.line("writing the vocabulary")
    text, index = (join(place.work, name) for name in (TEXT, INDEX))
    with atomic_writer(text) as words, atomic_writer(index) as numbers:
        if not (figures["documents"] and write_vocabulary(merged_words(job), words, numbers)):
            raise TokenizerError(NO_WORD)
    return WordTokenizer(Vocabulary.open(text, index)), figures
