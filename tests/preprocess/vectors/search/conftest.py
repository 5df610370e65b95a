"""Caches whose texts and vectors are given."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocess.files.manifest import Manifest, write_manifest
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.index import write_index
from preprocess.vectors.shard import VectorShardWriter

DIM = 16
Made = Callable[..., VectorCache]


@pytest.fixture
def cache_of(tmp_path: Path) -> Made:
    """Make a cache of texts, each a list of (token, top vector); layer 0 is random, fixed per token."""

    def make(
        texts: list[list[tuple[str, np.ndarray]]], mark: str = "▁", **details: object
    ) -> VectorCache:
        random, static = np.random.default_rng(0), {}
        folder = tmp_path / "cache"
        halves = len(texts) // 2
        records = []
        for shard, part in enumerate((texts[:halves], texts[halves:])):
            with VectorShardWriter(str(folder), (shard, 0), 2, DIM, "float32") as writer:
                for text in part:
                    for token, _ in text:
                        if token not in static:
                            static[token] = np.tile(random.standard_normal(DIM // 2), 2)
                    lower = np.array([static[token] for token, _ in text]).reshape(-1, DIM)
                    upper = np.array([vector for _, vector in text]).reshape(-1, DIM)
                    labels = [f"{mark}{token}" for token, _ in text]
                    if labels and not mark:
                        labels[0] = f"▁{labels[0]}"
                    spelt = ("" if not mark else " ").join(token for token, _ in text)
                    writer.add(spelt, labels, np.stack([lower, upper]).astype("f4"))
            records += writer.close()
        records += write_index(str(folder), [(0, 0), (1, 0)])
        all_details = {"layers": 2, "dim": DIM, "dtype": "float32", "unit": "token", "model": "m"}
        all_details["vectors"] = {"layers": "all"}
        manifest = Manifest(
            "embed", 2, "", "", "c" * 8, {}, tuple(records), {**all_details, **details}
        )
        write_manifest(str(folder), manifest)
        return VectorCache.open(folder)

    return make


@pytest.fixture
def banks() -> list[list[tuple[str, np.ndarray]]]:
    """Texts in which "bank" is near water in the even texts, and near money in the odd ones."""
    random = np.random.default_rng(1)
    river, money = np.eye(DIM, dtype="f4")[:2]

    def near(direction: np.ndarray | float, size: float) -> np.ndarray:
        return size * direction + 0.05 * random.standard_normal(DIM)

    texts = []
    for n in range(40):
        sense, (one, two) = (money, ("loan", "debt")) if n % 2 else (river, ("shore", "reed"))
        texts.append(
            [
                (f"a{n % 20}", near(0, 0)),
                ("Bank" if n == 4 else "bank", near(sense, 3)),
                (f"b{n % 19}", near(0, 0)),
                (one, near(sense, 2)),
                (two, near(sense, 1)),
            ]
        )
    return texts
