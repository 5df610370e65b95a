"""Recall, precision and speed of near-duplicate detection.

    python benchmarks/near_duplicates.py [FILE ...] [--similarity 0.8] [--documents 4000]

Reads text files with one document per line and keeps documents of 200 characters or more. Without
files it reads the Wikipedia texts in `BILOOM_TEST_DATA`, or else the documentation of the installed
Python. Copies of the documents are edited; the reference is the exact Jaccard similarity of the
character n-grams of a document and its copy. Prints a table, and all figures as JSON in the last line.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.reading.installed_docs import list_files, paragraphs
from preprocess.text.minhash import SHINGLE, Bands

LEAST_CHARACTERS = 200
FURNITURE = (
    "Home | About us | Contact | Sitemap | Privacy policy ",
    " All rights reserved. Share this page. Read more in the archive.",
)

Edit = Callable[[str, float, str, random.Random], str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--similarity", type=float, default=0.8)
    parser.add_argument("--documents", type=int, default=4000, help="maximum documents per file")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    bands = Bands(options.similarity, options.seed)
    print(f"similarity {options.similarity}: {bands.bands} bands of {bands.rows} rows")
    figures: dict[str, object] = {"bands": bands.bands, "rows": bands.rows}
    for name, documents in corpora(options.files, options.documents):
        measured = measure(bands, documents, options.similarity, options.seed)
        print(f"\n{name}")
        for key, value in measured.items():
            print(f"  {key:<42}{value:>12}")
        figures[name] = measured
    print(json.dumps(figures))


def corpora(files: list[Path], most: int) -> list[tuple[str, list[str]]]:
    """Return name and documents of each corpus."""
    if not files and (folder := os.environ.get("BILOOM_TEST_DATA")):
        files = sorted(Path(folder).glob("raw/*-wiki*.txt"))
    if not files:
        texts = (Path(file.path).read_text("utf-8", "replace") for file in list_files())
        prose = (document for text in texts for document in paragraphs(text))
        return [("installed-docs", choose(prose, most))]
    return [(file.name, choose(file.open(encoding="utf-8"), most)) for file in files]


def choose(lines: Iterable[str], most: int) -> list[str]:
    """Return the first ``most`` distinct lines that are long enough."""
    chosen: dict[str, None] = {}
    for line in lines:
        if len(text := " ".join(line.split())) >= LEAST_CHARACTERS:
            chosen[text] = None
        if len(chosen) == most:
            break
    return list(chosen)


def measure(
    bands: Bands, documents: list[str], similarity: float, seed: int
) -> dict[str, float | int]:
    """Measure speed on the documents, recall on edited copies, and precision of the drops."""
    megabytes = sum(len(text.encode()) for text in documents) / 1e6
    seconds = []
    for _ in range(3):
        began = time.process_time()
        originals = bands.keys(documents)
        seconds.append(time.process_time() - began)
    copies = edited_copies(documents, seed)
    keys = bands.keys(copies)
    true = np.array([jaccard(*pair) for pair in zip(documents, copies, strict=True)])
    found = np.any(originals == keys, axis=1)
    figures: dict[str, float | int] = {
        "documents": len(documents),
        "characters per document": round(sum(map(len, documents)) / len(documents)),
        "CPU-ms per MB": round(1000 * min(seconds) / megabytes, 1),
        f"pairs of {similarity} or more": int(np.sum(true >= similarity)),
        "recall on them": round(float(np.mean(found[true >= similarity])), 4),
    }
    edges = [similarity + step for step in (-0.3, -0.2, -0.1, -0.05, 0, 0.05, 0.1)] + [1.01]
    for low, high in pairwise(edges):
        chosen = (true >= low) & (true < high)
        if chosen.any():
            rates = found, 1 - (1 - true**bands.rows) ** bands.bands
            for name, rate in zip(("found", "expected"), rates, strict=True):
                figures[f"{name} of {low:.2f} to {min(high, 1):.2f}"] = round(
                    float(np.mean(rate[chosen])), 3
                )
    everything = documents + copies
    dropped = drops(np.concatenate([originals, keys]))
    likeness = np.array(
        [max(jaccard(everything[i], everything[j]) for j in js) for i, js in dropped.items()]
    )
    figures["dropped of originals and copies"] = len(dropped)
    figures["originals dropped"] = sum(i < len(documents) for i in dropped)
    figures[f"precision: share of them >= {similarity}"] = round(
        float(np.mean(likeness >= similarity)), 4
    )
    figures[f"share of them < {similarity - 0.1:.2f}"] = round(
        float(np.mean(likeness < similarity - 0.1)), 4
    )
    return figures


def drops(keys: npt.NDArray[np.uint64]) -> dict[int, set[int]]:
    """Return each text that shares a key with earlier texts, and the first text with each such key."""
    found: dict[int, set[int]] = {}
    for band in range(keys.shape[1]):
        owners: dict[int, int] = {}
        for number, key in enumerate(keys[:, band].tolist()):
            owner = owners.setdefault(key, number)
            if owner != number:
                found.setdefault(number, set()).add(owner)
    return found


def jaccard(one: str, other: str) -> float:
    """Return the Jaccard similarity of the character n-grams of two texts."""
    first, second = (
        {text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)} for text in (one, other)
    )
    return len(first & second) / len(first | second)


def edited_copies(documents: list[str], seed: int) -> list[str]:
    """Return an edited copy of each document; four kinds of edits alternate, their amount is random."""
    draw = random.Random(seed)
    edits: list[Edit] = [substitute, delete, insert, surround]
    return [
        edits[number % len(edits)](text, draw.random(), draw.choice(documents), draw)
        for number, text in enumerate(documents)
    ]


def substitute(text: str, amount: float, other: str, draw: random.Random) -> str:
    """Replace single characters; each one changes as many n-grams as an n-gram has characters."""
    characters = list(text)
    for _ in range(round(0.12 * amount * len(text) / 2)):
        characters[draw.randrange(len(text))] = draw.choice(other)
    return "".join(characters)


def delete(text: str, amount: float, other: str, draw: random.Random) -> str:
    """Delete a passage."""
    length = round(0.6 * amount * len(text))
    start = draw.randrange(len(text) - length + 1)
    return text[:start] + text[start + length :]


def insert(text: str, amount: float, other: str, draw: random.Random) -> str:
    """Insert a passage of another document."""
    start = draw.randrange(len(text) + 1)
    return text[:start] + (other * 9)[: round(amount * len(text))] + text[start:]


def surround(text: str, amount: float, other: str, draw: random.Random) -> str:
    """Add the navigation and footer of a web page."""
    length = round(amount * len(text) / 2)
    return (FURNITURE[0] * 99)[:length] + text + (FURNITURE[1] * 99)[:length]


if __name__ == "__main__":
    main()
