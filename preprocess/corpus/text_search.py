"""The texts of a corpus's documents, decoded from their tokens, and the search for a text in them."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.corpus.shard_places import ShardPlaces
from preprocess.corpus.tracing import Table, TraceError
from preprocess.files.manifest import recorded
from preprocess.shards.format import Corpus
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import SPLITS, CleaningConfig
from preprocess.tokenizers.base import UNKNOWN
from preprocess.tokenizers.load import Tokenizer


class CorpusTexts:
    """Reader of the texts of a corpus.

    Args:
        corpus: the corpus.
        tokenizer: its tokenizer.

    Attributes:
        tokens: number of tokens of all shards.
    """

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer) -> None:
        self._details = corpus.manifest.details
        self._tokenizer = tokenizer
        self._shards = {shard.name: shard for split in SPLITS for shard in corpus.shards(split)}
        self._open = lru_cache(maxsize=1)(self._open_shard)
        self.tokens = sum(shard.tokens for shard in self._shards.values())

    def text(self, shard: str, number: int) -> str:
        """Return the text of the document with this number in a shard."""
        ids, bounds = self._open(shard)
        return self._tokenizer.decode(ids[bounds[number] : bounds[number + 1]])

    def spellings(self, text: str) -> tuple[dict[str, set[str]], int]:
        """Return the forms in which a text may occur in documents, and its number of unknown tokens.

        Returns:
            For each source, the cleaned text, and the cleaned text after encoding and decoding, which
            may change it, for example by unknown words. The number is the largest of all sources.

        Raises:
            TraceError: no document can contain the text.
        """
        found: dict[str, set[str]] = {}
        unknown = 0
        for source in self._details["sources"]:
            settings = source if "cleaning" in source else self._details
            cleaning = recorded(CleaningConfig, settings, "cleaning")
            (cleaned,) = Cleaner(cleaning).clean_batch([text])
            (ids,) = self._tokenizer.encode([cleaned])
            if not len(ids):
                raise TraceError(
                    "the text to search for is empty after cleaning; name a longer one"
                )
            missing = int(np.count_nonzero(ids == UNKNOWN))
            if missing == len(ids):
                raise TraceError(
                    "no token of the text to search for is in the vocabulary, so it cannot be found; "
                    "name another text"
                )
            unknown = max(unknown, missing)
            found[source["name"]] = {cleaned, self._tokenizer.decode(ids)}
        return found, unknown

    def containing(
        self,
        places: ShardPlaces,
        table: Table,
        spellings: dict[str, set[str]],
        progress: Callable[[int, str], None],
    ) -> npt.NDArray[np.bool_]:
        """Return which documents of a segment contain a text, shape (documents,).

        Args:
            places: where the documents of segments are.
            table: the segment.
            spellings: the text, from `spellings`.
            progress: called with the number of tokens that were searched, and the name of their shard.
        """
        origins = table.origins
        contained = np.zeros(len(origins), bool)
        for split in SPLITS:
            indexes, done = origins.in_split(split), 0
            for name, first, documents in places.runs(table.key, split):
                texts = (self.text(name, number) for number in range(first, first + documents))
                wanted = spellings.get(origins.source, set())
                found = [any(one in text for one in wanted) for text in texts]
                contained[indexes[done : done + documents]] = found
                done += documents
                bounds = self._open(name)[1]
                progress(bounds[first + documents] - bounds[first], name)
        return contained

    def _open_shard(self, name: str) -> tuple[npt.NDArray[Any], list[int]]:
        """Return the ids of a shard, and where each document starts in them and the last one ends."""
        shard = self._shards[name]
        return shard.ids, [0, *np.cumsum(shard.lengths, dtype=np.int64).tolist()]
