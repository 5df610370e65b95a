"""What ``--dry-run`` prints about training: passes over the corpus, and time."""

import json
from collections.abc import Mapping
from contextlib import suppress
from statistics import median
from typing import NamedTuple

from lightning_modules.training.metrics_file import METRICS
from pipeline.config.recipe import open_settings, recipe_lines
from pipeline.config.schema import Config
from pipeline.console import Console, count
from pipeline.lifecycle.inputs import one_pass, stage_folder
from pipeline.lifecycle.plan import Action
from pipeline.lifecycle.registry import STAGES
from pipeline.lifecycle.stage import StageFolder
from pipeline.lifecycle.state import stage_place
from pipeline.training.forecast import (
    cpu_tokens_per_second,
    duration,
    time_warning,
    training_warnings,
    trains_on_cpu,
    zipf_counts,
)
from preprocess.config import HuggingFaceConfig, SentencePieceConfig, Source
from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.manifest import ManifestError, read_manifest
from preprocess.reading.formats.detection import INSTALLED_DOCS
from preprocess.reading.listing import list_source
from preprocess.text.config import SPLITS
from preprocess.tokenizers.huggingface.tokenizer import read_huggingface
from preprocess.tokenizers.subwords import read_sentencepiece

NO_TRAINING_TEXT = (
    "no text to train on: the train split is empty; add a source without split, or of split: train"
)
BYTES_A_TOKEN = {"sentencepiece": 4.5, "char": 2.0, "word": 6.0, "huggingface": 4.5}
"""Bytes of text per token before there is a tokenizer; the right number depends on the language."""
DOCSTRING_SHARE = 0.1
"""Rough share of a Python source that is prose in docstrings."""
UNKNOWN_VOCABULARY = 8000
"""Size of a vocabulary that is not known, for the estimate of the training speed."""
TIMED_ROWS = 20
"""Number of last rows of metrics.jsonl whose median gives the speed of interrupted training."""


class Vocabulary(NamedTuple):
    """The size of the vocabulary.

    Attributes:
        size: number of ids, or an upper bound of it; None if there is no bound.
        is_known: the size is exact.
    """

    size: int | None
    is_known: bool


class Contents(NamedTuple):
    """The size of the corpus.

    Attributes:
        tokens: number of tokens of each split.
        one_pass: number of tokens and document ends of the train split.
        basis: what an estimate is based on, to be printed after it; empty if the numbers are exact.
    """

    tokens: Mapping[str, float]
    one_pass: float
    basis: str = ""


class Measured(NamedTuple):
    """Progress of unfinished training: its last recorded step, and its speed in tokens per second."""

    step: int
    speed: float


def known_vocabulary(config: Config, is_stale: bool = False) -> Vocabulary:
    """Return the size of the vocabulary of the corpus or the tokenizer, or an estimate of it.

    Args:
        config: the settings.
        is_stale: the tokenizer of this run will be made again with other settings.
    """
    if is_stale:
        return _expected_vocabulary(config)
    try:
        if config.train.corpus:
            corpus = read_manifest(stage_folder(config, "prepare", config.train.corpus), "prepare")
            return Vocabulary(int(corpus.details["vocabulary"]), True)
        folder = stage_folder(config, "tokenizer", config.prepare.tokenizer)
        return Vocabulary(int(read_manifest(folder, "tokenizer").details["vocabulary"]), True)
    except ManifestError:
        return _expected_vocabulary(config)


def _expected_vocabulary(config: Config) -> Vocabulary:
    settings = config.tokenizer
    if isinstance(settings, HuggingFaceConfig):
        return Vocabulary(read_huggingface(settings.given).vocabulary, True)
    if not isinstance(settings, SentencePieceConfig):
        return Vocabulary(None, False)
    if settings.file:
        return Vocabulary(read_sentencepiece(settings.file).vocabulary, True)
    return Vocabulary(settings.vocabulary, False)


def show_training(
    config: Config,
    vocabulary: Vocabulary,
    corpus: Contents | None,
    action: Action,
    console: Console,
) -> None:
    """Print the passes over the corpus and the time of training, and warnings about both.

    Args:
        config: the settings, resolved if the size of the corpus is known.
        vocabulary: from `known_vocabulary`.
        corpus: from `contents_of`.
        action: what the train stage would do, `Plan.action`; if "keep", time is not printed.
        console: where the lines are printed.
    """
    train = config.train
    if any(key.startswith("train.") for key in open_settings(config)):
        console.line(
            "training: its length is not known before the corpus is prepared (train.passes or "
            "train.recipe)"
        )
        return
    length = f"training: {train.steps:,} steps of {train.tokens_a_step:,} tokens"
    for line in recipe_lines(config, corpus.one_pass) if corpus else ():
        console.line(line)
    warnings: list[str] = []
    if corpus is None:
        console.line(f"{length}; the number of passes is not known before the corpus is prepared")
    elif not corpus.one_pass:
        console.line(length)
        warnings = [NO_TRAINING_TEXT]
    else:
        passes = train.steps * train.tokens_a_step / corpus.one_pass
        shown = f"{passes:,.0f}" if passes >= 10 else f"{passes:.2g}"
        about = "about " if corpus.basis else ""
        size = f"{count(corpus.one_pass)} tokens{corpus.basis}"
        unit = "pass" if shown == "1" else "passes"
        console.line(f"{length}; {about}{shown} {unit} over {size}")
        ids = vocabulary.size or UNKNOWN_VOCABULARY
        warnings = training_warnings(config, passes, corpus.tokens, ids)
    if action == "keep":
        return
    for warning in warnings:
        console.warn(warning)
    _show_time(config, vocabulary, action, console)


def _show_time(config: Config, vocabulary: Vocabulary, action: Action, console: Console) -> None:
    train = config.train
    # If refused, the folder's metrics are of other settings, whose speed may differ.
    measured = None if action == "refuse" else _measured(config)
    if measured:
        seconds = (train.steps - measured.step) * train.tokens_a_step / measured.speed
        console.line(
            f"time: about {duration(seconds)} after step {measured.step:,} (at {measured.speed:,.0f} "
            "tokens/s, as in the last steps)"
        )
        return
    if train.teacher:
        console.line("time: not known before the first steps, because a teacher reads the text too")
        return
    if not trains_on_cpu(config):
        console.line("time: not known before the first steps, because training runs on a GPU")
        return
    speed = cpu_tokens_per_second(config, zipf_counts(vocabulary.size or UNKNOWN_VOCABULARY))
    seconds = train.steps * train.tokens_a_step / speed
    console.line(
        f"time: about {duration(seconds)} (at {speed:,.0f} tokens/s, estimated from the present speed "
        "of this CPU)"
    )
    if warning := time_warning(seconds, train.steps, "this machine"):
        console.warn(warning)


def contents_of(config: Config, is_stale: bool = False) -> Contents | None:
    """Return the size of the corpus: exact if it is prepared, else estimated from the files.

    None if the files cannot be listed, or if a corpus in another folder is not prepared.

    Args:
        config: the settings.
        is_stale: the corpus of this run will be made again with other settings.
    """
    corpus = None
    if not is_stale:
        with suppress(ManifestError):
            corpus = read_manifest(stage_folder(config, "prepare", config.train.corpus), "prepare")
    if corpus:
        splits = corpus.details["splits"]
        tokens = {split: sums["tokens"] for split, sums in splits.items()}
        return Contents(tokens, one_pass(corpus))
    if config.train.corpus:
        return None
    prepare = config.prepare
    try:
        sizes = [_text_bytes(source) for source in prepare.sources]
    except StorageError:
        return None
    a_token, basis = _bytes_a_token(config)
    fractions = {"valid": prepare.valid_fraction, "test": prepare.test_fraction}
    fractions["train"] = 1 - sum(fractions.values())
    tokens = dict.fromkeys(SPLITS, 0.0)
    for source, size in zip(prepare.sources, sizes, strict=True):
        for split, share in ({source.split: 1.0} if source.split else fractions).items():
            tokens[split] += size * share / a_token
    return Contents(tokens, tokens["train"], f" ({a_token:.1f} bytes each, {basis})")


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
    return BYTES_A_TOKEN[config.tokenizer.kind], "a guess, because there is no tokenizer yet"


def _metrics_file(config: Config) -> str:
    """Return the path of the metrics of unfinished training, or of the finished one."""
    stage = STAGES["train"]
    try:
        place = stage_place(stage, config)
    except ManifestError:  # no corpus, so the work folder is not known
        return StageFolder(stage.folder(config)).file(METRICS)
    path = place.new_file(METRICS)
    return path if storage.exists(path) else place.file(METRICS)


def _measured(config: Config) -> Measured | None:
    """Return the progress of training in the stage's folder; None if there is none to report."""
    try:
        lines = storage.read_bytes(_metrics_file(config)).decode().splitlines()
        rows = [json.loads(line) for line in lines]
        timed = [row for row in rows if row["step"] and row.get("tokens_per_second")]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not timed or timed[-1]["step"] >= config.train.steps:
        return None
    return Measured(timed[-1]["step"], median(r["tokens_per_second"] for r in timed[-TIMED_ROWS:]))
