"""Check of a vector cache: every entry is intact, and can be found by its text."""

from collections.abc import Callable, Iterator

from preprocess.vectors.cache import VectorCache
from preprocess.vectors.codec import CacheError


def check_entries(
    cache: VectorCache, progress: Callable[[int], None] | None = None
) -> Iterator[str]:
    """Read all of ``cache`` and yield a message for each shard with damaged or unindexed entries.

    Args:
        cache: the cache.
        progress: called with the number of shards checked, after each shard.
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
