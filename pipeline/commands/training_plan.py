"""What ``--dry-run`` says of a training: passes over the corpus and the time that it takes."""

import json
from statistics import median
from typing import NamedTuple

from pipeline.config.schema import Config
from pipeline.console import Console, count
from pipeline.lifecycle.registry import STAGES, stage_folder
from pipeline.lifecycle.stage import StageFolder
from pipeline.training.forecast import (
    cpu_tokens_per_second,
    duration,
    passes_warning,
    time_warning,
    trains_on_cpu,
    zipf_counts,
)
from preprocess.config import SentencePieceConfig, Source
from preprocess.files import storage
from preprocess.files.manifest import ManifestError, read_manifest
from preprocess.reading.formats import INSTALLED_DOCS
from preprocess.reading.listing import list_source
from preprocess.tokenizers.subwords import read_sentencepiece

BYTES_A_TOKEN = {"sentencepiece": 4.5, "char": 2.0, "word": 6.0}
"""Bytes of text per token before there is a tokenizer; the right number depends on the language."""
DOCSTRING_SHARE = 0.1
"""Share of a Python source that is prose in docstrings, roughly."""
UNKNOWN_VOCABULARY = 8000
TIMED_ROWS = 20
"""Rows of metrics.jsonl from which an interrupted training's speed is taken."""


class Vocabulary(NamedTuple):
    """The size of a vocabulary; an upper bound if it is not known yet, or None."""

    size: int | None
    is_known: bool


class Pass(NamedTuple):
    """Tokens of one pass over the corpus, and what the number is based on; empty if it is exact."""

    tokens: float
    basis: str = ""


class Measured(NamedTuple):
    """The last step of a training that has begun, and its tokens per second."""

    step: int
    speed: float


def known_vocabulary(config: Config) -> Vocabulary:
    """What is known of the vocabulary before or after the tokenizer is made."""
    try:
        folder = stage_folder(config, "tokenizer", config.prepare.tokenizer)
        return Vocabulary(int(read_manifest(folder, "tokenizer").details["vocabulary"]), True)
    except ManifestError:
        settings = config.tokenizer
        if not isinstance(settings, SentencePieceConfig):
            return Vocabulary(None, False)
        if settings.file:
            return Vocabulary(read_sentencepiece(settings.file).vocabulary, True)
        return Vocabulary(settings.vocabulary, False)


def tell_training(config: Config, vocabulary: Vocabulary, state: str, console: Console) -> None:
    """Show the passes and the time of a training, with warnings if either is much.

    Args:
        state: the train stage's, as `plan_of` words it.
    """
    train = config.train
    told = f"training: {train.steps:,} steps of {train.tokens_a_step:,} tokens"
    one = _pass(config)
    passes = 0.0
    if one is None:
        console.line(f"{told}; the number of passes is known when the corpus is")
    else:
        passes = train.steps * train.tokens_a_step / max(one.tokens, 1)
        shown = f"{passes:,.0f}" if passes >= 10 else f"{passes:.2g}"
        about = "about " if one.basis else ""
        console.line(f"{told}; {about}{shown} passes over {count(one.tokens)} tokens{one.basis}")
    if state == "already done":
        return
    if warning := passes_warning(passes, train.steps):
        console.warn(warning)
    _tell_time(config, vocabulary, state, console)


def _tell_time(config: Config, vocabulary: Vocabulary, state: str, console: Console) -> None:
    train = config.train
    # What lies there of other settings says nothing of this training's speed.
    measured = None if state.startswith("refused") else _measured(config)
    if measured:
        seconds = (train.steps - measured.step) * train.tokens_a_step / measured.speed
        console.line(
            f"time: about {duration(seconds)} after step {measured.step:,} (at {measured.speed:,.0f} "
            "tokens/s, as before)"
        )
        return
    if not trains_on_cpu(config):
        console.line("time: known after the first steps, since a GPU trains")
        return
    speed = cpu_tokens_per_second(config, zipf_counts(vocabulary.size or UNKNOWN_VOCABULARY))
    seconds = train.steps * train.tokens_a_step / speed
    console.line(
        f"time: about {duration(seconds)} (at {speed:,.0f} tokens/s, roughly, by this CPU's speed at "
        "the moment)"
    )
    if warning := time_warning(seconds, train.steps, "this machine"):
        console.warn(warning)


def _pass(config: Config) -> Pass | None:
    """What is known of the train split before or after it is prepared."""
    try:
        corpus = read_manifest(stage_folder(config, "prepare", config.train.corpus), "prepare")
    except ManifestError:
        pass
    else:
        split = corpus.details["splits"]["train"]
        return Pass(split["tokens"] + split["documents"])
    if config.train.corpus:
        return None
    prepare = config.prepare
    try:
        sources = [source for source in prepare.sources if source.split in (None, "train")]
        size = sum(_text_bytes(source) for source in sources)
    except storage.StorageError:
        return None
    a_token, basis = _bytes_a_token(config)
    share = 1 - prepare.valid_fraction - prepare.test_fraction
    return Pass(size * share / a_token, f" ({a_token:.1f} bytes each, {basis})")


def _text_bytes(source: Source) -> float:
    size = sum(file.bytes for file in list_source(source))
    is_source_code = source.format == "docstrings" or INSTALLED_DOCS in source.paths
    return size * (DOCSTRING_SHARE if is_source_code else 1.0)


def _bytes_a_token(config: Config) -> tuple[float, str]:
    try:
        folder = stage_folder(config, "tokenizer", config.prepare.tokenizer)
        found = read_manifest(folder, "tokenizer").details["coverage"]["bytes_per_token"]
    except (ManifestError, KeyError):
        found = None
    if found:
        return float(found), "as the tokenizer measured"
    return BYTES_A_TOKEN[config.tokenizer.kind], "a guess until there is a tokenizer"


def _measured(config: Config) -> Measured | None:
    """What is known of a training that has begun in the stage's folder."""
    place = StageFolder(STAGES["train"].folder(config))
    try:
        lines = storage.read_bytes(place.file("metrics.jsonl")).decode().splitlines()
        rows = [json.loads(line) for line in lines]
    except (FileNotFoundError, ValueError):
        return None
    timed = [row for row in rows if row.get("tokens_per_second")]
    if not timed or timed[-1]["step"] >= config.train.steps:
        return None
    return Measured(timed[-1]["step"], median(r["tokens_per_second"] for r in timed[-TIMED_ROWS:]))
