"""What a run made, on one screen and in one HTML page: figures, and words with several uses."""

import json
from itertools import islice
from typing import Any

from pipeline.config.load import dump_config
from pipeline.config.schema import Config, ReportConfig
from pipeline.console import Console, count
from pipeline.lifecycle.registry import stage_folder
from pipeline.reports.perplexity_tables import show_evaluation
from pipeline.reports.run_page import Findings, page
from preprocess.files import storage
from preprocess.files.manifest import read_manifest
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.neighbours import WordUses, word_uses

FIRST_TEXTS, EXAMPLE_CHARACTERS = 200, 24
"""Of the cache's first texts, that nearest to this length is the example of looking one up."""


def report(config: Config, console: Console) -> None:
    """Show what the finished stages of ``config`` made, and write ``report.html`` above them.

    Raises:
        ManifestError: a stage is not finished.
    """
    path = storage.join(storage.absolute(config.run.output), "report.html")
    console.stage("report", path)
    cache = VectorCache.open(stage_folder(config, "embed"))
    found = _find(config, cache)
    # What UTF-8 cannot hold (half of a surrogate pair, in a path) must not cost the report.
    storage.write_bytes(path, page(found).encode("utf-8", "replace"))
    show_evaluation(console, found.held_out)
    for word in found.words:
        _show_word(console, word)
    if not _shows_words(cache):
        console.line(
            "uses of words are shown where embed keeps texts, and all layers of all tokens"
        )
    elif not found.words:
        console.line("no word is frequent enough in the vector cache to show its uses")
    _show_places(console, stage_folder(config, "export", config.embed.model), cache)


def _find(config: Config, cache: VectorCache) -> Findings:
    trained = stage_folder(config, "train")
    rows = storage.read_bytes(storage.join(trained, "metrics.jsonl")).decode().splitlines()
    return Findings(
        config=dump_config(config),
        corpus=read_manifest(
            stage_folder(config, "prepare", config.train.corpus), "prepare"
        ).details,
        training=read_manifest(trained, "train").details,
        metrics=[json.loads(row) for row in rows],
        held_out=read_manifest(stage_folder(config, "evaluate"), "evaluate").details,
        words=_words(cache, config.report),
    )


def _words(cache: VectorCache, settings: ReportConfig) -> list[WordUses]:
    """The words asked for; where the text has none of them, words of its own as well."""
    if not _shows_words(cache):
        return []
    asked = word_uses(cache, settings.words, settings.neighbours)
    if settings.words is None or any(word.uses for word in asked):
        return asked
    return [*asked, *word_uses(cache, None, settings.neighbours)]


def _shows_words(cache: VectorCache) -> bool:
    layers = cache.manifest.details.get("vectors", {}).get("layers", "all")
    return cache.texts_kept and cache.unit == "token" and layers == "all"


def _show_word(console: Console, word: WordUses) -> None:
    if not word.uses:
        times = "once" if word.occurrences else "nowhere"
        console.line(f"{word.word}: {times} in the part of the vector cache that was read")
        return
    console.line(f"{word.word}: as one vector (layer 0) near {_listed(word.static)}")
    for use in word.uses:
        console.passage(use.typical.before, use.typical.word, use.typical.after)
        near = [neighbour.snippet.word for neighbour in use.neighbours]
        console.line(f"    in this use near {_listed(near)}")


def _listed(words: Any) -> str:
    return ", ".join(words) or "no frequent word"


def _show_places(console: Console, model: str, cache: VectorCache) -> None:
    console.line(f"model    {model}")
    console.line(f"vectors  {cache.path}  ({count(len(cache))} texts)")
    console.line("from biloom import BiLM, VectorCache")
    texts = list(islice(cache, FIRST_TEXTS)) if cache.texts_kept else []
    if texts:
        text = min(texts, key=lambda one: abs(len(one) - EXAMPLE_CHARACTERS))
        shape = ", ".join(str(size) for size in cache[text].shape)
        console.line(f"VectorCache.open({cache.path!r})[{text!r}]  # ({shape})")
    console.line(f"BiLM.from_pretrained({model!r}).embed(['any text'])[0].vectors")
