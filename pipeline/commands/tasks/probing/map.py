"""`biloom map`: a page that shows the uses of words, or texts, as points in two dimensions."""

from collections.abc import Sequence

import numpy as np

from lightning_modules.tasks.probing.projection import Projection, principal_components, t_sne
from pipeline.commands.inspection import folder_of
from pipeline.config.probing import MapConfig
from pipeline.console import Console
from pipeline.reports.map_page import MapPoint, map_page
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.write_checks import check_no_folder
from preprocess.reading.labelled.options import LabelledTextOptions
from preprocess.reading.labelled.texts import read_labelled_texts
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.neighbours import two_means, word_uses
from preprocess.vectors.search.exact import solid
from preprocess.vectors.search.layer import CacheLayer, unit_length
from preprocess.vectors.search.sampling import Sample, sample_texts, sample_uses
from preprocess.vectors.word_sample import word_key

NO_LABEL = "no label"


class MapError(UserError):
    """A map of nothing, or of two things at once."""


def draw_map(path: str, page: str, words: Sequence[str], texts: bool, settings: MapConfig) -> None:
    """Write the page of a map.

    Args:
        path: folder or URL of a vector cache.
        page: the HTML file to write.
        words: the words whose uses are shown.
        texts: show texts instead. Without words and texts, the words with the most distinct uses are
            chosen, or texts if the cache has one vector for each text.
        settings: the settings of the map.

    Raises:
        MapError: words and texts are asked for, or there is nothing to show.
        QueryError: a word does not occur in the cache.
        CacheError: the cache is damaged or does not keep its texts.
        StorageError: the page is a folder, or cannot be written.
        ProjectionError: there are too few points, or openTSNE is not installed.
    """
    if words and texts:
        raise MapError("--word and --texts exclude each other; show uses of words, or texts")
    check_no_folder(page)
    words = [*{word_key(word): word for word in words}.values()]
    console = Console()
    console.stage("map", path)
    with VectorCache.open(folder_of(path)) as cache:
        layer = CacheLayer.of(cache, settings.layer)
        if not words and not texts and cache.unit != "sentence":
            words = _chosen(cache)
            console.line(f"words with distinct uses: {', '.join(words)}")
        with console.bar("read", len(cache)) as bar:
            if words:
                sample = sample_uses(
                    cache, words, layer, settings.points, settings.seed, bar.update
                )
            else:
                sample = sample_texts(cache, layer, settings.points, settings.seed, bar.update)
        model = cache.model
    groups, notes = _groups(sample, words, settings)
    for note in notes:
        console.warn(note)
    projection = _project(sample, settings)
    total = sum(sample.of.values())
    shown = f"{len(sample.items):,} of {total:,}" if total > len(sample.items) else f"{total:,}"
    what = "uses of " + ", ".join(words) if words else "texts"
    html = map_page(
        f"{what[:1].upper()}{what[1:]}",
        "A map of vectors: points that are near have similar vectors",
        [
            ("Cache", path),
            ("Model", model[:12]),
            ("Layer", str(layer.number)),
            ("Points", f"{shown} {'uses' if words else 'texts'}"),
            ("Method", _method(settings)),
        ],
        [MapPoint(group, item.snippet) for group, item in zip(groups, sample.items, strict=True)],
        projection.points,
        _axes(projection),
    )
    storage.write_bytes(page, html.encode("utf-8", "replace"))
    console.line(f"{page}: {shown} {what}")


def _chosen(cache: VectorCache) -> list[str]:
    """Return the words whose uses are the most distinct.

    Raises:
        MapError: no word has distinct uses.
    """
    if chosen := [found.word for found in word_uses(cache, None, 1)]:
        return chosen
    raise MapError(
        f"{cache.path}: no word occurs often enough to choose it; name words with --word, or show texts "
        "with --texts"
    )


def _groups(
    sample: Sample, words: Sequence[str], settings: MapConfig
) -> tuple[list[str], list[str]]:
    """Return the group of each point, and what the user must know about the labels."""
    if settings.labels:
        reading = read_labelled_texts(settings.labels, LabelledTextOptions())
        labels = {solid(one.text): ", ".join(one.labels) for one in reading.examples}
        groups = [labels.get(item.text, NO_LABEL) for item in sample.items]
        missing = groups.count(NO_LABEL)
        notes = list(reading.notes)
        if missing:
            notes.append(
                f"{missing:,} of {len(groups):,} points have no label in {settings.labels}"
            )
        return groups, notes
    if len(words) == 1 and len(sample.items) > 2:
        vectors = np.stack([item.vector for item in sample.items])
        first, _ = two_means(unit_length(vectors - vectors.mean(0)))
        if not first.all():
            # The more frequent use is the first.
            first = first if first.sum() * 2 >= len(first) else ~first
            return [f"{words[0]}, use {1 if one else 2}" for one in first.tolist()], []
    return [item.group or "texts" for item in sample.items], []


def _project(sample: Sample, settings: MapConfig) -> Projection:
    vectors = np.array([item.vector for item in sample.items], np.float32)
    if settings.method == "tsne":
        return t_sne(vectors, settings.perplexity, settings.seed)
    return principal_components(vectors)


def _method(settings: MapConfig) -> str:
    if settings.method == "tsne":
        return f"t-SNE, perplexity {settings.perplexity:g}, seed {settings.seed}"
    return "principal components"


def _axes(projection: Projection) -> list[str]:
    if not projection.shares:
        return ["Distances between far points of t-SNE mean little."]
    across, *up = projection.shares
    return [
        f"The horizontal axis has {across:.0%} of the variance, the vertical axis "
        f"{up[0] if up else 0:.0%}."
    ]
