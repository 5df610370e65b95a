"""Texts with known near-duplicates for `benchmarks/near_duplicates.py`."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, comb
from pathlib import Path

from preprocess.text.minhash import SHINGLE

FURNITURE = (
    "Home | About us | Contact | Sitemap | Privacy policy ",
    " All rights reserved. Share this page. Read more in the archive.",
)
CHAINS, CHAIN = 100, 12
"""Number of chains, and of documents of each."""
TEMPLATES, VARIANTS = 20, 40
"""Number of templates, and of documents of each."""

Edit = Callable[[str, float, str, random.Random], str]
Pairs = dict[tuple[int, int], float]


@dataclass(frozen=True)
class Made:
    """Documents with known relations, shuffled.

    Attributes:
        texts: the documents.
        kinds: how each was made: "original", "edit", "chain" or "template".
        chains: numbers of the first and the last document of each chain.
    """

    texts: list[str]
    kinds: list[str]
    chains: list[tuple[int, int]]


def made(documents: list[str], seed: int) -> Made:
    """Return the documents, an edited copy of each, chains and templates.

    - Four kinds of edits alternate; their amount is random, so that similarities from 0.4 to 1 occur.
    - Each document of a chain replaces a passage of the one before it, some 9 % of the text.
    - Documents of a template differ in some 5 to 20 % of their words.
    """
    draw = random.Random(seed)
    rows = [(text, "original") for text in documents]
    edits: list[Edit] = [substitute, delete, insert, surround]
    for number, text in enumerate(documents):
        edit = edits[number % len(edits)]
        rows.append((edit(text, draw.random(), draw.choice(documents), draw), "edit"))
    long = [text for text in documents if len(text) >= 200] or documents
    ends = []
    for number in range(CHAINS):
        text = long[number % len(long)]
        ends.append((len(rows), len(rows) + CHAIN - 1))
        for _ in range(CHAIN):
            text = replace(text, draw.choice(long), draw)
            rows.append((text, "chain"))
    for number in range(TEMPLATES):
        words = long[-1 - number % len(long)].split(" ")
        share = draw.uniform(0.05, 0.2)
        for _ in range(VARIANTS):
            other = draw.choice(long).split(" ")
            mixed = [draw.choice(other) if draw.random() < share else word for word in words]
            rows.append((" ".join(mixed), "template"))
    order = draw.sample(range(len(rows)), len(rows))
    place = {old: new for new, old in enumerate(order)}
    chains = [(place[first], place[last]) for first, last in ends]
    return Made([rows[n][0] for n in order], [rows[n][1] for n in order], chains)


def shingles(text: str) -> set[str]:
    """Return the character n-grams of a text."""
    return {text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)}


def similar_pairs(texts: Sequence[str], least: float) -> Pairs:
    """Return the exact Jaccard similarity of each pair for which it is at least ``least - 0.1``.

    Source: Xiao, Wang, Lin and Yu, "Efficient similarity joins for near-duplicate detection" (2008):
    of two similar sets, the rarest elements of both have one in common.
    """
    least -= 0.1
    sets = [shingles(text) for text in texts]
    number_of = Counter(gram for grams in sets for gram in grams)
    owners: dict[str, list[int]] = {}
    pairs: Pairs = {}
    for document, grams in enumerate(sets):
        rarest = sorted(grams, key=lambda gram: (number_of[gram], gram))
        prefix = rarest[: len(grams) - ceil(least * len(grams)) + 1]
        candidates = {other for gram in prefix for other in owners.get(gram, ())}
        for other in candidates:
            sizes = len(grams), len(sets[other])
            if min(sizes) < least * max(sizes):
                continue
            shared = len(grams & sets[other])
            if shared >= least * (sum(sizes) - shared):
                pairs[other, document] = shared / (sum(sizes) - shared)
        for gram in prefix:
            owners.setdefault(gram, []).append(document)
    return pairs


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


def replace(text: str, other: str, draw: random.Random) -> str:
    """Replace a passage of some 6 % by one of another document."""
    length = max(2, round(0.06 * len(text)))
    start = draw.randrange(max(1, len(text) - length))
    return text[:start] + (other * 9)[:length] + text[start + length :]


@dataclass(frozen=True)
class Core:
    """CORE's labelled scholarly documents (``pinecone/core-2020-05-10-deduplication``).

    Attributes:
        texts: title and abstract of each document.
        ids: id of each document.
        labels: ids of the duplicates of each document.
    """

    texts: list[str]
    ids: list[str]
    labels: list[set[str]]

    def measures(self, clusters: Sequence[int]) -> dict[str, float]:
        """Return text-dedup's measures of clusters, one number per document.

        A document with duplicates is a true positive if its cluster has all of them. What
        text-dedup calls "macro F1" is the mean of the precisions of duplicates and non-duplicates.
        """
        members: dict[int, set[str]] = {}
        for name, cluster in zip(self.ids, clusters, strict=True):
            members.setdefault(cluster, set()).add(name)
        counts: Counter[str] = Counter()
        exact = 0
        for name, cluster, labels in zip(self.ids, clusters, self.labels, strict=True):
            found = members[cluster] - {name}
            exact += found == labels
            if not found:
                counts["FN" if labels else "TN"] += 1
            else:
                counts["TP" if labels and labels <= found else "FP"] += 1
        precision = counts["TP"] / max(1, counts["TP"] + counts["FP"])
        recall = counts["TP"] / max(1, counts["TP"] + counts["FN"])
        others = counts["TN"] / max(1, counts["TN"] + counts["FN"])
        return {
            "precision of duplicates": precision,
            "recall of duplicates": recall,
            "precision of non-duplicates": others,
            "recall of non-duplicates": counts["TN"] / max(1, counts["TN"] + counts["FP"]),
            "macro precision, text-dedup's macro F1": (precision + others) / 2,
            "accuracy": exact / max(1, len(self.ids)),
        }


@dataclass(frozen=True)
class News:
    """NEWS-COPY's labelled newspaper articles (``chenghao/NEWS-COPY-eval``): texts and their clusters."""

    texts: list[str]
    labels: list[int]

    def measures(self, clusters: Sequence[int]) -> dict[str, float]:
        """Return the adjusted Rand index of clusters, one number per document.

        Source: Hubert and Arabie, "Comparing partitions" (1985).
        """
        both = Counter(zip(self.labels, clusters, strict=True))
        pairs = sum(comb(number, 2) for number in both.values())
        true, found = (
            sum(comb(n, 2) for n in Counter(column).values()) for column in (self.labels, clusters)
        )
        expected = true * found / max(1, comb(len(self.labels), 2))
        most = (true + found) / 2
        return {
            "adjusted Rand index": (pairs - expected) / (most - expected)
            if most != expected
            else 1.0
        }


def core(path: Path) -> Core:
    """Read ``train.jsonl`` of CORE."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return Core(
        [f"{row['processed_title']} {row['processed_abstract']}".lower() for row in rows],
        [str(row["core_id"]) for row in rows],
        [{str(name) for name in row["labelled_duplicates"] or ()} for row in rows],
    )


def news(path: Path) -> News:
    """Read the Parquet file of NEWS-COPY's test split."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, columns=["article", "cluster"])
    texts = [" ".join(text.split()) for text in table["article"].to_pylist()]
    return News(texts, table["cluster"].to_pylist())
