"""The report of a run, on the terminal and as ``report.html`` in the run folder."""

import posixpath
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pipeline.config.load import dump_config, load_config
from pipeline.config.schema import Config, ReportConfig
from pipeline.console import Console, count
from pipeline.lifecycle.inputs import stage_folder
from pipeline.lifecycle.stage import CONFIG
from pipeline.reports.assessment import assess
from pipeline.reports.perplexity_tables import evaluations, show_evaluation
from pipeline.reports.run_folder import read_metrics, read_result, read_run
from pipeline.reports.run_page import Findings, page
from preprocess.files import storage
from preprocess.files.temporary import temporary_folder
from preprocess.files.verified import manifest_of, read_config, read_verified
from preprocess.tokenizers.kind_file import KIND_FILE
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.neighbours import WordUses, word_uses

FIRST_TEXTS, EXAMPLE_CHARACTERS = 200, 24
"""The printed example is the text, among the cache's first ``FIRST_TEXTS``, whose length is nearest to
``EXAMPLE_CHARACTERS``."""

CORPUS_PAGE = "corpus.html"


def config_of_run(folder: str) -> Config:
    """Return the settings of the run in ``folder``, with which `report` can be called again.

    The settings are those of the last finished stage, but run.output is ``folder``, which may have
    been moved since.

    Raises:
        UserError: no stage of the run is finished.
        ConfigError: the settings cannot be read.
    """
    run = read_run(folder)
    last = list(run.results.values())[-1]
    # The loader reads local files only.
    with temporary_folder("biloom-") as copies:
        copy = Path(copies) / CONFIG
        copy.write_bytes(read_verified(last.folder, last.manifest, CONFIG))
        config = load_config([str(copy)], [])
    # Not by an override of run.output, which is parsed as YAML: "[a]" would be a list.
    return config.model_copy(update={"run": config.run.model_copy(update={"output": run.folder})})


def report(config: Config, console: Console) -> None:
    """Print the results of the finished stages, and write them to ``report.html`` in run.output.

    Raises:
        ManifestError: a stage is not finished.
    """
    folder = storage.absolute(config.run.output)
    path = storage.join(folder, "report.html")
    console.stage("report", path)
    cache = VectorCache.open(stage_folder(config, "embed"))
    model = stage_folder(config, "export", config.embed.model)
    found = _find(config, folder, model, cache)
    # UTF-8 cannot encode half a surrogate pair, which a path may hold.
    storage.write_bytes(path, page(found).encode("utf-8", "replace"))
    for figures in found.held_out:
        show_evaluation(console, figures)
    for verdict in found.verdicts:
        if verdict.level == "attention":
            console.warn(f"{verdict.topic}: {verdict.text}")
    for word in found.words:
        _show_word(console, word)
    if not _shows_words(cache):
        console.line(
            "uses of words are not shown: they need embed to keep texts and to store the "
            "vectors of all layers of each token"
        )
    elif not found.words:
        console.line("no word is frequent enough in the vector cache to show its uses")
    _show_paths(console, model, cache)


def _find(config: Config, folder: str, model: str, cache: VectorCache) -> Findings:
    corpus = read_result(stage_folder(config, "prepare", config.train.corpus), "prepare")
    training = read_result(stage_folder(config, "train"), "train")
    held_out = evaluations(read_result(stage_folder(config, "evaluate"), "evaluate").details)
    metrics = read_metrics(training.folder)
    return Findings(
        folder=folder,
        tokenizer=_tokenizer_kind(model),
        corpus_page=link(folder, storage.join(corpus.folder, CORPUS_PAGE)),
        config=dump_config(config),
        corpus=corpus,
        training=training,
        held_out=held_out,
        metrics=metrics,
        verdicts=assess(training.details, metrics, held_out[0]),
        words=_words(cache, config.report),
    )


def _tokenizer_kind(model: str) -> str:
    manifest = manifest_of(model)
    if not storage.exists(storage.join(model, KIND_FILE)):
        return "unknown"
    return str(read_config(model, manifest, KIND_FILE).get("kind", "unknown"))


def link(folder: str, page: str) -> str | None:
    """Return the relative URL of ``page`` for a page in ``folder``.

    None if the page does not exist, or is in another store, which a relative URL cannot reach.
    """
    stores = [urlsplit(path)[:2] if storage.is_remote(path) else None for path in (folder, page)]
    if stores[0] != stores[1] or not storage.exists(page):
        return None
    if not stores[0]:
        folder, page = (str(storage.local_path(path)) for path in (folder, page))
    return quote(posixpath.relpath(page, folder), errors="surrogateescape")


def _words(cache: VectorCache, settings: ReportConfig) -> list[WordUses]:
    """Return the uses of the words in the settings; if the text has none of them, also of others."""
    if not _shows_words(cache):
        return []
    found = word_uses(cache, settings.words, settings.neighbours)
    if settings.words is None or any(word.uses for word in found):
        return found
    return [*found, *word_uses(cache, None, settings.neighbours)]


def _shows_words(cache: VectorCache) -> bool:
    vectors = cache.manifest.details.get("vectors")
    made = vectors if isinstance(vectors, dict) else {}
    is_whole = made.get("layers", "all") == "all" and made.get("kind", "vector") == "vector"
    return cache.texts_kept and cache.unit == "token" and is_whole


def _show_word(console: Console, word: WordUses) -> None:
    if not word.uses:
        times = "occurs once" if word.occurrences else "does not occur"
        console.line(f"{word.word}: {times} in the part of the vector cache that was read")
        return
    console.line(f"{word.word}: nearest in layer 0: {_listed(word.static)}")
    for use in word.uses:
        console.passage(use.typical.before, use.typical.word, use.typical.after)
        near = [neighbour.snippet.word for neighbour in use.neighbours]
        console.line(f"    nearest in this use: {_listed(near)}")


def _listed(words: Any) -> str:
    return ", ".join(words) or "no frequent word"


def _show_paths(console: Console, model: str, cache: VectorCache) -> None:
    console.line(f"model    {model}")
    console.line(f"vectors  {cache.path}  ({count(len(cache))} texts)")
    console.line("from biloom import BiLM, VectorCache")
    texts = list(islice(cache, FIRST_TEXTS)) if cache.texts_kept else []
    if texts:
        text = min(texts, key=lambda one: abs(len(one) - EXAMPLE_CHARACTERS))
        shape = ", ".join(str(size) for size in cache[text].shape)
        console.line(f"VectorCache.open({cache.path!r})[{text!r}]  # ({shape})")
    console.line(f"BiLM.from_pretrained({model!r}).embed(['any text'])[0].vectors")
