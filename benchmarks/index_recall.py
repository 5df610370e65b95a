"""Recall of the approximate index of `biloom neighbours` against an exact search.

    biloom neighbours CACHE 'some [word] here' --index INDEX
    python benchmarks/index_recall.py INDEX/words-layer-0 [--queries 1000] [--seed 1]

The queries are vectors of the index, drawn at random. Each search returns as many vectors as `biloom
neighbours` looks at first. Recall is the share of the nearest vectors of the exact search, the query itself
left out, that are among the nearest of the index. A vector that is as near as the last one counts as found,
because equal vectors have no order. Prints JSON.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from usearch.index import Index

from preprocess.vectors.search.index import FIRST, GRAPH
from preprocess.vectors.search.layer import unit_length

EQUAL = 1e-5
"""Cosine similarities closer than this count as equal."""


def recall(folder: str, queries: int, nearest: int, seed: int) -> dict[str, Any]:
    """Return the recall of an index, and the seconds of a search of each kind."""
    graph = Index.restore(f"{folder}/{GRAPH}", view=True)
    total = len(graph)
    drawn = np.random.default_rng(seed).permutation(total)[:queries].astype(np.uint64)
    vectors = np.asarray(graph.get(np.arange(total, dtype=np.uint64)), np.float32)
    vectors = unit_length(vectors)
    wanted = vectors[drawn.astype(np.int64)]
    start = time.perf_counter()
    found = [graph.search(one, min(FIRST, total), threads=1).keys for one in wanted]
    seconds = time.perf_counter() - start
    shares = [
        _share(vectors @ one, query, keys.astype(np.int64), nearest)
        for one, query, keys in zip(wanted, drawn.tolist(), found, strict=True)
    ]
    return {
        "vectors": total,
        "queries": len(drawn),
        f"recall@{nearest}": round(float(np.mean(shares)), 4),
        "least": round(min(shares), 4),
        "ms_per_search": round(1000 * seconds / len(drawn), 2),
    }


def _share(
    cosines: npt.NDArray[np.float32], query: int, keys: npt.NDArray[np.int64], nearest: int
) -> float:
    others = np.delete(cosines, query)
    least = np.partition(others, -nearest)[-nearest]
    first = cosines[keys[keys != query][:nearest]]
    return float((first >= least - EQUAL).sum()) / nearest


def main() -> None:
    """Print the recall of an index as JSON."""
    parser = argparse.ArgumentParser(description="Recall of an index of a vector cache")
    parser.add_argument("folder")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--nearest", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(recall(options.folder, options.queries, options.nearest, options.seed)))


if __name__ == "__main__":
    main()
