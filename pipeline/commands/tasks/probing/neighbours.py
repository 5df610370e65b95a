"""`biloom neighbours`: the nearest uses of a word in its context, or the nearest texts."""

import json
from contextlib import ExitStack
from functools import partial

from lightning_modules.tasks.probing.cache_query import entry_of
from pipeline.commands.inspection import folder_of
from pipeline.commands.tasks.probing.cache_model import model_of
from pipeline.config.probing import NeighboursConfig
from pipeline.console import Console
from pipeline.version import biloom_version
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.neighbours import Neighbour
from preprocess.vectors.search.exact import ExactSearch, NearText, WordNeighbours, WordQuery
from preprocess.vectors.search.index import CacheIndex
from preprocess.vectors.search.layer import CacheLayer
from preprocess.vectors.search.marked_text import MarkedText

SHOWN = 300
"""Characters of a text that are printed; --json prints all."""


def neighbours(
    path: str,
    written: str,
    settings: NeighboursConfig,
    model: str | None,
    index: str | None,
    as_json: bool,
) -> None:
    """Print what is nearest to a marked word, or to a whole text.

    Args:
        path: folder or URL of a vector cache.
        written: the text; brackets mark the word to search for.
        settings: the settings of the search.
        model: folder of the cache's model; None to look for it.
        index: folder of an approximate index, which is made if it is missing; None to read the whole
            cache.
        as_json: print one JSON object instead of lists.

    Raises:
        QueryError: the text is empty, or its brackets do not mark one word.
        CacheError: the cache is damaged or does not keep its texts.
        CacheModelError: the text is not in the cache, and the cache's model is not found.
    """
    marked = MarkedText.parse(written)
    console = Console()
    with ExitStack() as stack:
        cache = stack.enter_context(VectorCache.open(folder_of(path)))
        layer = CacheLayer.of(cache, settings.layer)
        spellings, vectors = entry_of(cache, marked.text, partial(model_of, cache, model))
        query = WordQuery.of(marked, spellings, vectors, layer) if marked.word else None
        progress = _no_progress
        if not as_json:
            progress = stack.enter_context(console.bar("read", len(cache))).update
        search: ExactSearch | CacheIndex = ExactSearch(cache, layer, progress)
        if index:
            search = CacheIndex.open(index, cache, layer, not query, biloom_version(), progress)
        if query:
            words = search.nearest_uses(query, settings.neighbours)
        else:
            texts = search.nearest_texts(marked.text, layer.text(vectors), settings.neighbours)
    if query:
        if as_json:
            print(json.dumps(_word_figures(words)))
        else:
            _show_words(console, query.spelling, words, exact=not index)
    else:
        if as_json:
            print(json.dumps(_text_figures(texts)))
        else:
            _show_texts(console, texts)


def _no_progress(done: int) -> None:
    """Show nothing, because standard output is JSON."""


def _show_words(console: Console, word: str, found: WordNeighbours, exact: bool) -> None:
    console.stage(word, f"{found.occurrences:,} of {found.searched:,} words in the cache")
    if found.occurrences:
        console.line(f"uses of {word}, the nearest first")
    elif exact:
        console.line(f"the cache has no other use of {word}")
    else:
        console.line(
            f"the index has no use of {word}; in text without spaces, it has the uses of tokens "
            "only, and a search without --index finds all"
        )
    for one in found.same:
        _show(console, one)
    console.line("uses of other words")
    for one in found.others:
        _show(console, one)
    what = "mean vectors" if found.static_is_mean else "layer 0"
    near = ", ".join(f"{word} {cosine:.2f}" for word, cosine in found.static)
    console.line(f"the nearest words without context ({what}): {near or 'none'}")


def _show(console: Console, one: Neighbour) -> None:
    shown = one.snippet
    console.passage(shown.before, shown.word, shown.after, f"{one.cosine:5.2f}  ")


def _show_texts(console: Console, found: list[NearText]) -> None:
    console.line("the nearest texts" if found else "the cache has no other text")
    for one in found:
        text = one.text[:SHOWN] + "…" * (len(one.text) > SHOWN)
        console.line(f"{one.cosine:5.2f}  {text}")


def _word_figures(found: WordNeighbours) -> dict[str, object]:
    def uses(some: tuple[Neighbour, ...]) -> list[dict[str, object]]:
        return [{"cosine": round(one.cosine, 6), **vars(one.snippet)} for one in some]

    return {
        "occurrences": found.occurrences,
        "searched": found.searched,
        "same": uses(found.same),
        "others": uses(found.others),
        "static": [{"word": word, "cosine": round(value, 6)} for word, value in found.static],
        "static_is_mean": found.static_is_mean,
    }


def _text_figures(found: list[NearText]) -> dict[str, object]:
    return {"texts": [{"cosine": round(one.cosine, 6), "text": one.text} for one in found]}
