"""Whether every entry of a vector cache is what it was, and found by its text."""

from collections.abc import Callable, Iterator

from preprocess.vectors.cache import VectorCache
from preprocess.vectors.codec import CacheError


def check_entries(
    cache: VectorCache, progress: Callable[[int], None] | None = None
) -> Iterator[str]:
    """Read all of ``cache``: a line a shard that has something wrong, with its first trouble.

    ``progress`` is called with the number of each shard that is through.
    """
    for number, shard in enumerate(cache.shards):
        wrong = 0
        first = ""
        try:
            block = cache.block(number)
            missing = ~cache.has(block.keys)
            wrong, first = int(missing.sum()), "not in the index"
            if cache.texts_kept:
                for entry in range(len(block.keys)):
                    try:
                        cache.at(shard, entry)
                    except CacheError as error:
                        first = first if wrong else str(error)
                        wrong += 1
        except CacheError as error:
            yield str(error)
        else:
            if wrong:
                yield f"{shard.entries}: {wrong:,} of {len(block.keys):,} entries: {first}"
        if progress:
            progress(number + 1)
