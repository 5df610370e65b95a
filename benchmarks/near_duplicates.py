"""Precision, recall and speed of near-duplicate detection.

    python benchmarks/near_duplicates.py [FILE ...] [--documents 3000] [--similarity 0.7 0.8 0.9]
    python benchmarks/near_duplicates.py --copies 100000
    python benchmarks/near_duplicates.py --core train.jsonl --news test.parquet

Reads text files with one document per line. Without files it reads the Wikipedia texts in
`BILOOM_TEST_DATA`, or else the documentation of the installed Python. From these, documents with known
relations are made (`made`), and the exact Jaccard similarity of all pairs of their character n-grams is
the reference. ``former`` is the rule that drops every document that shares a key with an earlier one, without
comparing them. ``--copies`` measures the time for many variants of one text. ``--core`` and ``--news`` read
two public data sets and compute the measures of text-dedup's benchmarks. Prints a table, and all
figures as JSON in the last line.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from near_duplicate_texts import Made, core, made, news, similar_pairs

from preprocess.corpus.near.blocks import FATE, PAIR, QUESTION, Blocks, decide, sorted_pairs
from preprocess.corpus.near.pairs import find_pairs
from preprocess.reading.installed_docs import list_files, paragraphs
from preprocess.text import minhash
from preprocess.text.minhash import NO_KEY, Bands, most_differing

Drops = dict[int, int]
"""Number of each dropped document, and the document that it is dropped for."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--similarity", type=float, nargs="+", default=[0.7, 0.8, 0.9])
    parser.add_argument("--documents", type=int, default=3000, help="maximum documents per file")
    parser.add_argument("--copies", type=int, help="number of variants of one text")
    parser.add_argument("--core", type=Path, help="train.jsonl of core-2020-05-10-deduplication")
    parser.add_argument("--news", type=Path, help="the test split of NEWS-COPY-eval, as Parquet")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    if options.copies:
        figures["copies"] = many_copies(options.copies, options.seed)
    for name, reader in (("core", core), ("news", news)):
        if path := getattr(options, name):
            figures[name] = {
                similarity: public(reader, path, similarity) for similarity in options.similarity
            }
    if not figures:
        for name, documents in corpora(options.files, options.documents):
            print(f"\n{name}")
            figures[name] = measure(documents, options.similarity, options.seed)
    print(json.dumps(figures))


def corpora(files: list[Path], most: int) -> list[tuple[str, list[str]]]:
    """Return name and documents of each corpus."""
    if not files and (folder := os.environ.get("BILOOM_TEST_DATA")):
        files = [Path(folder) / f"raw/{name}" for name in ("en-wiki.8MB.txt", "zh-wiki.5MB.txt")]
    if not files:
        texts = (Path(file.path).read_text("utf-8", "replace") for file in list_files())
        prose = (document for text in texts for document in paragraphs(text))
        return [("installed-docs", choose(prose, most))]
    return [(file.name, choose(file.open(encoding="utf-8"), most)) for file in files]


def choose(lines: Iterable[str], most: int) -> list[str]:
    """Return the first ``most`` distinct lines of 80 characters or more."""
    chosen: dict[str, None] = {}
    for line in lines:
        if len(text := " ".join(line.split())) >= 80:
            chosen[text] = None
        if len(chosen) == most:
            break
    return list(chosen)


def measure(documents: list[str], similarities: Sequence[float], seed: int) -> dict[str, Any]:
    """Measure speed on the documents, and the drops among documents made from them."""
    megabytes = sum(len(text.encode()) for text in documents) / 1e6
    bands = Bands(0.8, seed)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        bands.keys(documents)
        seconds.append(time.process_time() - began)
    texts = made(documents, seed)
    pairs = similar_pairs(texts.texts, min(similarities))
    figures: dict[str, Any] = {
        "documents": len(texts.texts),
        "characters per document": round(sum(map(len, texts.texts)) / len(texts.texts)),
        "MB/s": round(megabytes / min(seconds), 1),
    }
    for similarity in similarities:
        bands = Bands(similarity, seed)
        keys, sketches = bands.keys(texts.texts)
        figures[str(similarity)] = {
            "bands": bands.bands,
            "rows": bands.rows,
            "compared": judged(drops(keys, sketches, similarity), texts, pairs, similarity),
            "former": judged(
                former_drops(former_keys(texts, similarity, seed)), texts, pairs, similarity
            ),
        }
    for name, value in figures.items():
        if isinstance(value, dict):
            print(f"  similarity {name}: {value['bands']} bands of {value['rows']} rows")
            for key, compared in value["compared"].items():
                print(f"    {key:<44}{compared:>10}{value['former'][key]:>10}")
        else:
            print(f"  {name:<46}{value:>10}")
    return figures


def drops(
    keys: npt.NDArray[np.uint32], sketches: npt.NDArray[np.uint64], similarity: float
) -> Drops:
    """Return the near-duplicates among documents of one unit."""
    document, band = np.nonzero(keys != NO_KEY)
    found = find_pairs(keys[document, band], sketches[document], most_differing(similarity))
    pairs = np.empty(len(found.later), PAIR)
    pairs["later"], pairs["earlier"] = document[found.later], document[found.earlier]
    pairs["differing"] = found.differing
    none = np.empty(0, FATE)
    decided = decide(
        Blocks(1, 1), 0, sorted_pairs(pairs), np.empty(0, QUESTION), none, none, is_last=True
    )
    return dict(decided.dropped.tolist())


def former_keys(texts: Made, similarity: float, seed: int) -> npt.NDArray[np.uint32]:
    """Return the keys that former versions compared: more rows, so that fewer pairs share a key."""
    for rows in range(256, 1, -1):
        if 1 - (1 - similarity**rows) ** (256 // rows) >= 0.75:
            break
    with patch.object(minhash, "bands_and_rows", lambda _: (256 // rows, rows)):
        return Bands(similarity, seed).keys(texts.texts)[0]


def former_drops(keys: npt.NDArray[np.uint32]) -> Drops:
    """Return the documents that share a key with an earlier one, and the earliest such document."""
    found: Drops = {}
    for band in range(keys.shape[1]):
        owners: dict[int, int] = {}
        for number, key in enumerate(keys[:, band].tolist()):
            owner = owners.setdefault(key, number)
            if owner != number and key != NO_KEY:
                found[number] = min(owner, found.get(number, owner))
    return found


def judged(
    dropped: Drops, texts: Made, pairs: dict[tuple[int, int], float], similarity: float
) -> dict[str, float | int]:
    """Return measures of the drops.

    - precision: share of the dropped documents that are as similar as requested to a kept document;
    - recall: share of the pairs as similar as requested of which at most one document is kept;
    - chains with both ends kept: their similarity is 0.3 to 0.5. An end may also be dropped for its
      neighbour, if that is kept; otherwise, it is an end without a similar kept document.
    """
    kept = {*range(len(texts.texts))} - dropped.keys()
    best = dict.fromkeys(dropped, 0.0)
    for (one, other), value in pairs.items():
        for document, neighbour in ((one, other), (other, one)):
            if document in best and neighbour in kept:
                best[document] = max(best[document], value)
    values = np.array(list(best.values()))
    similar = [pair for pair, value in pairs.items() if value >= similarity]
    covered = sum(not (one in kept and other in kept) for one, other in similar)
    ends = [end for pair in texts.chains for end in pair]
    lost = [end for end in ends if end not in kept and best[end] < similarity - 0.05]
    both = sum(one in kept and other in kept for one, other in texts.chains)
    kinds: dict[str, list[bool]] = {}
    for one, other in similar:
        kinds.setdefault(texts.kinds[other], []).append(not (one in kept and other in kept))
    return {
        "dropped": len(dropped),
        "precision": round(float(np.mean(values >= similarity)), 4),
        "precision, 0.05 less similar counts too": round(
            float(np.mean(values >= similarity - 0.05)), 4
        ),
        "dropped although 0.1 less similar": round(float(np.mean(values < similarity - 0.1)), 4),
        "pairs": len(similar),
        "recall": round(covered / max(1, len(similar)), 4),
        "chains with both ends kept": round(both / max(1, len(texts.chains)), 4),
        "chain ends without a similar kept document": round(len(lost) / max(1, len(ends)), 4),
        **{f"recall: {kind}": round(float(np.mean(v)), 4) for kind, v in sorted(kinds.items())},
    }


def many_copies(number: int, seed: int) -> dict[str, float]:
    """Measure the time for variants of one text: equal ones, and ones with other words in a template."""
    draw = random.Random(seed)
    words = [f"word{n}" for n in range(5000)]
    text = " ".join(draw.choices(words, k=120))
    variants = {
        "equal": [text] * number,
        "one number": [f"{text} {n}" for n in range(number)],
        "template": [
            " ".join([text[:300], *draw.choices(words, k=30), text[300:]]) for n in range(number)
        ],
    }
    figures: dict[str, float] = {}
    bands = Bands(0.8, seed)
    for name, texts in variants.items():
        keys, sketches = bands.keys(texts)
        began = time.process_time()
        dropped = drops(keys, sketches, 0.8)
        figures[f"{name}: CPU-s"] = round(time.process_time() - began, 2)
        figures[f"{name}: kept"] = number - len(dropped)
    for name, value in figures.items():
        print(f"  {name:<46}{value:>10}")
    return figures


def public(reader: Any, path: Path, similarity: float) -> dict[str, float]:
    """Return the measures of a public data set, with a cluster for each kept document."""
    data = reader(path)
    keys, sketches = Bands(similarity, 1).keys(data.texts)
    dropped = drops(keys, sketches, similarity)
    figures: dict[str, float] = data.measures([dropped.get(n, n) for n in range(len(data.texts))])
    for name, value in figures.items():
        print(f"  {path.name} {similarity}: {name:<40}{value:>10.4f}")
    return figures


if __name__ == "__main__":
    main()
