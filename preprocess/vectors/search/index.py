"""An approximate index of the word uses, or of the texts, of a vector cache (usearch, HNSW graphs).

The exact search reads the whole cache for each query. For an index the cache is read once; a later
search takes the time to hash and map the index. It is a folder with a manifest, which is written last:

    vectors.usearch   centred vectors of length 1, float16, with their graph
    places.npy        for each vector: shard, entry, first character and last character + 1, and the
                      number of its word, int64 (vectors, 5)
    mean.npy          the mean vector that was subtracted, float32 (dim,)
    words.json        the words: key, spelling, number of uses
    static.npy        vector of each word in layer 0, or its mean vector, float32 (words, size)
"""

import io
import json
import shutil
from array import array
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.fingerprint import fingerprint
from preprocess.files.manifest import (
    NAME,
    Manifest,
    check_files,
    content_hash,
    read_manifest,
    records_of,
    write_manifest,
)
from preprocess.files.temporary import temporary_folder
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.neighbours import Neighbour, least_count
from preprocess.vectors.search.exact import (
    NearText,
    Progress,
    WordNeighbours,
    WordQuery,
    around,
    cosines_to,
    joined,
    not_finite,
    own_pieces,
    solid,
)
from preprocess.vectors.search.layer import CacheLayer, unit_length
from preprocess.vectors.search.static_words import StaticWords, WordTable
from preprocess.vectors.shard import to_json
from preprocess.vectors.word_sample import (
    Floats,
    Snippet,
    find_words,
    has_spaces,
    joined_text,
    shown,
    snippet,
    word_key,
)

STAGE, VERSION = "index", 1
GRAPH, PLACES, MEAN, WORDS, STATIC = (
    "vectors.usearch",
    "places.npy",
    "mean.npy",
    "words.json",
    "static.npy",
)
FIRST, MOST = 256, 1 << 16
"""Number of vectors that are searched for first, and at most if these give too few results."""

AT_ONCE = 4096
"""Vectors that are added at once."""


class CacheIndexError(UserError):
    """An index that cannot be made, or that is of another cache."""


class CacheIndex:
    """An index of the uses of words, or of the texts, in a layer of a cache; see `open`.

    Attributes:
        vectors: number of vectors in the index.
    """

    def __init__(self, folder: str, cache: VectorCache, layer: CacheLayer) -> None:
        self._cache, self._layer = cache, layer
        self._graph = _usearch().restore(storage.local_path(f"{folder}/{GRAPH}"), view=True)
        self._places, self._mean, static = (
            np.load(storage.local_path(f"{folder}/{name}")) for name in (PLACES, MEAN, STATIC)
        )
        rows = json.loads(storage.read_bytes(f"{folder}/{WORDS}"))
        keys, spellings, counts = zip(*rows, strict=True) if rows else ((), (), ())
        self._keys: list[str] = list(keys)
        self._table = WordTable(list(keys)[: len(static)], list(spellings), static)
        self._known = {
            key
            for key, count in zip(keys, counts, strict=True)
            if count >= least_count(len(self._places))
        }
        self.vectors = len(self._places)

    @classmethod
    def open(
        cls,
        folder: str,
        cache: VectorCache,
        layer: CacheLayer,
        texts: bool,
        biloom: str,
        progress: Progress = lambda _: None,
    ) -> "CacheIndex":
        """Open an index, after making it if it is missing.

        Args:
            folder: a local folder, which can hold the indexes of words and of texts for each layer.
            cache: the cache.
            layer: the layer that is indexed.
            texts: index the texts instead of the uses of words.
            biloom: version of the package, for the manifest.
            progress: called with the number of texts read, while the index is made.

        Raises:
            CacheIndexError: usearch is not installed, the folder is remote, or the index is of another
                cache, or of this cache before texts were added.
            CacheError: the cache is damaged, does not keep its texts, or holds NaN or infinity.
            ManifestError: the manifest of the index is damaged.
        """
        _usearch()
        if storage.is_remote(folder):
            raise CacheIndexError(f"{folder}: an index must be in a local folder; name another one")
        kind = "texts" if texts else "words"
        folder = storage.absolute(f"{folder}/{kind}-layer-{layer.number}")
        asked = {
            "stage": STAGE,
            "cache": cache.manifest.content,
            "kind": kind,
            "layer": layer.number,
        }
        if not storage.exists(f"{folder}/{NAME}"):
            _make(folder, cache, layer, texts, asked, biloom, progress)
        elif read_manifest(folder, STAGE).asked != asked:
            raise CacheIndexError(
                f"{folder}: this index is of another cache, or of this cache before texts were added; "
                "name another folder, or delete this one"
            )
        if damage := check_files(folder, read_manifest(folder, STAGE)):
            raise CacheIndexError(f"{'; '.join(damage)}; delete {folder} to make the index again")
        return cls(folder, cache, layer)

    def nearest_uses(self, query: WordQuery, neighbours: int) -> WordNeighbours:
        """Find the uses of words that are nearest to a use of a word; see `exact.nearest_uses`.

        Uses of the same word are exact. In text without spaces, only tokens are indexed, so a word of
        several tokens has no uses of its own.
        """
        wanted = unit_length(query.vector - self._mean)
        own = self._keys.index(query.word) if query.word in self._keys else -1
        uses = np.flatnonzero(self._places[:, 4] == own)
        same: dict[tuple[str, str], Neighbour] = {}
        if len(uses):
            rows = np.asarray(self._graph.get(uses.astype(np.uint64)), np.float32)
            cosines = cosines_to(wanted, rows, self._cache.path)
            for n in np.argsort(-cosines, kind="stable").tolist():
                use = self._use(int(uses[n]), query)
                if use is not None and use.around not in same:
                    same[use.around] = Neighbour(float(cosines[n]), use.snippet)
                if len(same) == neighbours:
                    break
        others: dict[str, Neighbour] = {}
        for number, cosine in self._near(wanted, lambda: len(others) >= neighbours):
            key = self._keys[self._places[number, 4]]
            if key == query.word or key in others or key not in self._known:
                continue
            use = self._use(number, query)
            if use is not None and key not in use.pieces:
                others[key] = Neighbour(cosine, use.snippet)
        static = self._table.nearest(query.word, query.static, self._known, neighbours)
        return WordNeighbours(
            len(uses),
            self.vectors,
            tuple(same.values()),
            tuple(others.values())[:neighbours],
            static,
            query.static is None,
        )

    def nearest_texts(self, text: str, vector: Floats, neighbours: int) -> list[NearText]:
        """Find the texts that are nearest to a text; see `exact.nearest_texts`."""
        wanted, own = unit_length(vector - self._mean), solid(text)
        found: dict[str, NearText] = {}
        for number, cosine in self._near(wanted, lambda: len(found) >= neighbours):
            shard, entry = self._places[number, :2].tolist()
            raw = self._cache.at(self._cache.shards[shard], entry)[0]
            assert raw is not None
            key = solid(raw)
            if key != own and key not in found:
                found[key] = NearText(cosine, shown(joined(raw)))
        return list(found.values())[:neighbours]

    def _near(self, wanted: Floats, is_enough: Callable[[], bool]) -> Iterator[tuple[int, float]]:
        """Yield vectors by their distance, until there are enough, with their cosine similarity."""
        count, seen = FIRST, 0
        while True:
            found = self._graph.search(wanted, min(count, max(self.vectors, 1)), threads=1)
            for number, distance in list(
                zip(found.keys.tolist(), found.distances.tolist(), strict=True)
            )[seen:]:
                yield number, 1 - distance
            if is_enough() or len(found.keys) < count or count >= MOST:
                return
            seen, count = len(found.keys), 4 * count

    def _use(self, number: int, query: WordQuery) -> "_Use | None":
        """Return a use of a word, or None if it is in the query's text."""
        shard, entry, start, end, _ = self._places[number].tolist()
        raw, _ = self._cache.at(self._cache.shards[shard], entry)
        assert raw is not None
        if solid(raw) == query.text:
            return None
        text, starts = joined_text(self._cache.tokens(raw))
        words = find_words(text, starts, [query.word])
        keys = [word_key(text[word.start : word.end]) for word in words]
        at = next(n for n, word in enumerate(words) if (word.start, word.end) == (start, end))
        pieces = own_pieces(query.word, keys, words, has_spaces(text, starts))
        return _Use(snippet(text, start, end), around(keys, words, at), pieces)


class _Use(NamedTuple):
    """A use of a word, the keys of the words around it, and the pieces of the query's word."""

    snippet: Snippet
    around: tuple[str, str]
    pieces: set[str]


def _usearch() -> Any:
    try:
        from usearch.index import Index
    except ImportError as error:
        raise CacheIndexError(
            "an index needs usearch, which is not installed; pip install 'biloom[search]', or search "
            "without --index"
        ) from error
    return Index


def _make(
    folder: str,
    cache: VectorCache,
    layer: CacheLayer,
    texts: bool,
    asked: dict[str, Any],
    biloom: str,
    progress: Progress,
) -> None:
    """Make an index; the same cache gives the same files."""
    mean = layer.mean(cache, texts)
    graph = _usearch()(ndim=cache.dim, metric="cos", dtype="f16")
    words, places, waiting = StaticWords(layer.static is None), array("q"), _Waiting(graph)
    numbers: dict[str, int] = {}
    counts = array("q")
    shards = {name: number for number, name in enumerate(cache.shards)}
    for done, (shard, entry, _, labels, vectors) in enumerate(cache.located_entries(), 1):
        progress(done)
        if texts:
            if vectors.shape[1]:
                waiting.add(layer.text(vectors)[None] - mean, cache.path)
                places.extend((shards[shard], entry, 0, 0, -1))
            continue
        text, starts = joined_text(labels)
        found = find_words(text, starts)
        if not found:
            continue
        keys = [words.key(text[word.start : word.end]) for word in found]
        rows = layer.words(vectors, found)
        words.add(keys, found, vectors, rows, layer)
        waiting.add(rows - mean, cache.path)
        for key, word in zip(keys, found, strict=True):
            number = numbers.setdefault(key, len(numbers))
            if number == len(counts):
                counts.append(0)
            counts[number] += 1
            places.extend((shards[shard], entry, word.start, word.end, number))
    waiting.flush()
    table = words.table()
    rows_of_words = [
        [key, words.spelling(key), count] for key, count in zip(numbers, counts, strict=True)
    ]
    with temporary_folder("biloom-index-") as scratch:
        graph.save(f"{scratch}/{GRAPH}")
        with (
            open(f"{scratch}/{GRAPH}", "rb") as saved,
            storage.atomic_writer(f"{folder}/{GRAPH}") as out,
        ):
            shutil.copyfileobj(saved, out)
    _write_array(f"{folder}/{PLACES}", np.frombuffer(places, np.int64).reshape(-1, 5))
    _write_array(f"{folder}/{MEAN}", mean)
    _write_array(f"{folder}/{STATIC}", table.vectors)
    storage.write_bytes(f"{folder}/{WORDS}", to_json(rows_of_words))
    names = (GRAPH, PLACES, MEAN, STATIC, WORDS)
    files = tuple(records_of(folder, names))
    write_manifest(
        folder,
        Manifest(STAGE, VERSION, biloom, fingerprint(asked), content_hash(files), asked, files, {}),
    )


class _Waiting:
    """Vectors that are added to a graph many at a time."""

    def __init__(self, graph: Any) -> None:
        self._graph, self._rows, self._count, self._total = (
            graph,
            [np.empty((0, graph.ndim), "f4")],
            0,
            0,
        )

    def add(self, centred: Floats, path: str) -> None:
        norms = np.linalg.norm(centred, axis=1)
        if not np.isfinite(norms).all():
            raise not_finite(path)
        self._rows.append(unit_length(centred))
        self._count += len(centred)
        if self._count >= AT_ONCE:
            self.flush()

    def flush(self) -> None:
        rows = np.concatenate(self._rows)
        if len(rows):
            keys = np.arange(self._total, self._total + len(rows), dtype=np.uint64)
            # With several threads, the graph depends on their timing.
            self._graph.add(keys, rows, threads=1)
        self._total += len(rows)
        self._rows, self._count = [np.empty((0, rows.shape[1]), np.float32)], 0


def _write_array(path: str, values: NDArray[Any]) -> None:
    data = io.BytesIO()
    np.save(data, values)
    storage.write_bytes(path, data.getvalue())
