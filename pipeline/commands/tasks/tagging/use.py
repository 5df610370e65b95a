"""`biloom tag test` and `biloom tag predict`: a trained tagger on other sentences."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rich.console import Console as RichConsole

from lightning_modules.tasks.features import features_of
from lightning_modules.tasks.stored_task import Task
from lightning_modules.tasks.tables import escape_field
from lightning_modules.tasks.tagging.config import TagUseConfig
from lightning_modules.tasks.tagging.evaluation import evaluate
from lightning_modules.tasks.tagging.joining import TextCutter, joined_text, text_of
from lightning_modules.tasks.tagging.saved import (
    SavedTagger,
    TaskTagger,
    from_task,
    language_model,
    read_tagger,
)
from lightning_modules.tasks.tagging.spans import spans_of
from lightning_modules.tasks.vector_source import VectorSource
from pipeline.commands.tasks.tagging.data import (
    TagError,
    in_scheme_of,
    read_file,
    tell_unseen,
    vectors_of,
)
from pipeline.commands.tasks.tagging.tables import TUNED, WITH, score_rows, show_spans
from pipeline.config.sections import load_section
from pipeline.console import Console
from pipeline.training.device import resolve_device
from preprocess.files.manifest import read_manifest
from preprocess.reading.labelled.examples import TaggedSentence
from preprocess.reading.labelled.inputs import read_untagged
from preprocess.reading.labelled.options import TaggedOptions
from preprocess.vectors.cache import VectorCache

WINDOW_TOKENS = 20_000
"""Tokens that are tagged at once; predictions of a stream appear after as many."""
WINDOW = 1024
"""Sentences that are tagged at once."""


@dataclass(frozen=True)
class _Opened:
    """A task folder that is ready to predict.

    Attributes:
        tagger: the tagger.
        source: the language model, the cache or both.
        options: how files are read.
        cutter: cuts texts without tokens into words.
        kept: which of several trainings the folder has; empty if there was one.
    """

    tagger: TaskTagger
    source: VectorSource
    options: TaggedOptions
    cutter: TextCutter
    kept: str

    def predict(self, sentences: Sequence[TaggedSentence]) -> list[tuple[str, ...]]:
        """Return the tags of sentences; a sentence without tokens has none."""
        filled = [sentence for sentence in sentences if sentence.tokens]
        texts = [joined_text(sentence, self.tagger.join) for sentence in filled]
        features = features_of(self.source.model, self.source.cache, texts, "word")
        found = iter(self.tagger.predict([one.tokens for one in filled], features))
        return [next(found) if sentence.tokens else () for sentence in sentences]


def _open(path: str, model: str | None, config: TagUseConfig) -> _Opened:
    task = read_tagger(path)
    tagger = from_task(task)
    source = _source(task, tagger, model, config.cache)
    device = resolve_device(config.device)
    if source.model is not None:
        source.model.to(device)
    tagger.tagger.network.to(device)
    given = {name: getattr(config, name) for name in config.model_fields_set}
    if config.column is not None:
        given["tags"] = config.column
    options = {**tagger.read.model_dump(), "format": "auto", **given}
    names = TaggedOptions.model_fields
    read = TaggedOptions(**{name: options[name] for name in names})
    segmenter = config.segmenter or tagger.segmenter
    cutter = TextCutter(tagger.segmented, segmenter, by_rule="split" in given)
    return _Opened(tagger, source, read, cutter, task.config.settings.kept_training)


def _source(
    task: Task[SavedTagger], tagger: TaskTagger, model: str | None, cache: str | None
) -> VectorSource:
    """Open the language model of a task, or a vector cache of it."""
    content = task.model.content
    is_cache = model is not None and read_manifest(model).stage == "embed"
    if tagger.finetuned and (is_cache or cache is not None):
        raise TagError(
            f"{task.path}: this tagger has a language model of its own (finetune=true), but a vector "
            "cache has the vectors of the original one; name the model folder with --model, and no cache"
        )
    if model is not None and is_cache:
        if cache is not None:
            raise TagError("--model and cache both name a vector cache; name one of them")
        return VectorSource(None, VectorCache.open(model, content), task.model)
    opened = VectorCache.open(cache, content) if cache else None
    return VectorSource(language_model(task, tagger, model), opened, task.model)


def tag_test(path: str, file: str, model: str | None, overrides: Sequence[str]) -> None:
    """Print the scores of a tagger on a file of tagged sentences.

    Args:
        path: the task folder.
        file: the sentences.
        model: folder of the language model or of a vector cache of it; None means the model's folder
            when the task was trained.
        overrides: ``key=value`` settings of `TagUseConfig`.

    Raises:
        UserError: a setting, a file or the model is wrong; the message says what to do.
    """
    config = load_section(TagUseConfig, overrides)
    console = Console()
    console.stage("tag test", path)
    opened = _open(path, model, config)
    if opened.kept:
        console.line(opened.kept)
    read = read_file(file, opened.options, console)
    tags = opened.tagger.tagger.parts.tags
    sentences = [*map(opened.cutter, in_scheme_of(read, tags, file, console))]
    tell_unseen(tags, sentences, console)
    features = vectors_of(sentences, opened.tagger.join, opened.source, console)
    found = opened.tagger.predict([one.tokens for one in sentences], features)
    scores = evaluate([one.tags for one in sentences], [found], tags.file_scheme)
    title = f"test, {len(sentences):,} sentences, percent with 95 % intervals over sentences"
    name = TUNED if opened.tagger.finetuned else WITH
    console.table(title, *score_rows({name: scores}))
    show_spans(console, "spans by label", scores)


def tag_predict(path: str, file: str, model: str | None, overrides: Sequence[str]) -> None:
    """Print the predictions of a tagger.

    Args:
        path: the task folder.
        file: plain text, one sentence per line, or tokens in any format of tagged sentences; "-" reads
            standard input.
        model: as in `tag_test`.
        overrides: ``key=value`` settings of `TagUseConfig`.

    Raises:
        UserError: a setting, the file or the model is wrong; the message says what to do.
    """
    config = load_section(TagUseConfig, overrides)
    notes = Console(RichConsole(stderr=True, highlight=False, soft_wrap=True))
    opened = _open(path, model, config)
    if opened.kept:
        notes.line(opened.kept)
    write = _conll if config.output == "conll" else _json_line
    problems: Counter[str] = Counter()
    total = 0
    read = map(opened.cutter, read_untagged(file, opened.options, notes.line))
    for window in _windows(read):
        for sentence, tags in zip(window, opened.predict(window), strict=True):
            sys.stdout.write(write(sentence, tags, opened.tagger))
            problems.update([sentence.problem] if sentence.problem else [])
            total += 1
        sys.stdout.flush()
    for problem, count in problems.most_common():
        notes.warn(f"{count:,} of {total:,} sentences have no tags: {problem}")


def _windows(sentences: Iterable[TaggedSentence]) -> Iterator[list[TaggedSentence]]:
    """Yield the sentences of a stream in groups of bounded size."""
    stream = iter(sentences)
    while window := list(islice(stream, 1)):
        tokens = len(window[0].tokens)
        while tokens < WINDOW_TOKENS and len(window) < WINDOW and (more := list(islice(stream, 1))):
            window += more
            tokens += len(more[0].tokens)
        yield window


def _json_line(sentence: TaggedSentence, tags: Sequence[str], tagger: TaskTagger) -> str:
    """Return a sentence as a line of JSON: text, tokens, tags, and spans by tokens and characters."""
    text, offsets = text_of(sentence, tagger.join)
    row: dict[str, Any] = {"text": text, "tokens": [*sentence.tokens], "tags": [*tags]}
    if tagger.tagger.parts.tags.file_scheme is not None:
        row["spans"] = []
        for first, end, label in spans_of(tags):
            start, stop = offsets[first][0], offsets[end - 1][1]
            row["spans"].append(
                {
                    "start": start,
                    "end": stop,
                    "label": label,
                    "text": text[start:stop],
                    "first_token": first,
                    "last_token": end - 1,
                }
            )
    if sentence.problem:
        row["problem"] = sentence.problem
    # Lone surrogates have no UTF-8; JSON escapes them.
    line = json.dumps(row, ensure_ascii=False)
    return line.encode("utf-8", "backslashreplace").decode() + "\n"


def _conll(sentence: TaggedSentence, tags: Sequence[str], tagger: TaskTagger) -> str:
    """Return a sentence as lines of a token and its tag, and a blank line."""
    pairs = zip(sentence.tokens, tags, strict=True)
    rows = (f"{_one_cell(token)}\t{_one_cell(tag)}\n" for token, tag in pairs)
    return "".join([*rows, "\n"])


def _one_cell(text: str) -> str:
    """Return a token or tag of JSON, escaped only if it would end a cell or a line."""
    return text if text.isprintable() else escape_field(text)
