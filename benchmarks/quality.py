"""CPU time of each set of rules, of lists, masks and decontamination, per MB of text.

    python benchmarks/quality.py TEXT [--document line|paragraph|file] [--megabytes 8]

Each setting is timed alone, in batches as in prepare, and the time without any setting is subtracted.
The first batches are not counted, because tables are made there. CPU seconds of one thread; each
figure is the least of two.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preprocess.config import PrepareConfig
from preprocess.corpus.batch import BATCH_CHARACTERS, BATCH_DOCUMENTS
from preprocess.quality.screening import Screener

MASK = {"email": "<email>", "ip": "<ip>", "phone": "<phone>"}
SETS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "gopher_quality": {"filters": {"gopher_quality": {}}},
    "gopher_repetition": {"filters": {"gopher_repetition": {}}},
    "refinedweb_lines": {"filters": {"refinedweb_lines": {}}},
    "c4": {"filters": {"c4": {}}},
    "fineweb": {"filters": {"fineweb": {}}},
    "gopher + c4 + fineweb": {
        "filters": {"gopher_quality": {}, "gopher_repetition": {}, "c4": {}, "fineweb": {}}
    },
    "max_symbols": {"filters": {"max_symbols": 0.9}},
    "languages": {"filters": {"languages": ["en"], "min_language_score": 0.65}},
    "mask": {"mask": MASK},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--document", choices=("line", "paragraph", "file"), default="paragraph")
    parser.add_argument("--megabytes", type=float, default=3)
    given = parser.parse_args()
    text = given.text.read_text("utf-8", "replace")[: int(given.megabytes * 1e6)]
    batches = list(in_batches(documents(text, given.document)))
    size = sum(len(one.encode()) for batch in batches for one in batch) / 1e6
    number = sum(map(len, batches))
    print(f"{size:.1f} MB, {number:,} documents, {len(batches)} batches")
    with tempfile.TemporaryDirectory() as folder:
        items = Path(folder, "items.txt")
        items.write_text("\n".join(sentences(text)[::50]))
        sets = {
            **SETS,
            "decontamination": {"decontamination": {"benchmarks": {"some": str(items)}}},
        }
        found = {}
        for name, settings in sets.items():
            config = PrepareConfig.model_validate({"input": "unused", **settings})
            found[name] = milliseconds(config, batches) / size
            cost = found[name] - (found["nothing"] if name != "nothing" else 0)
            print(f"{name:24} {cost:8.1f} CPU ms/MB")
    print(json.dumps({name: round(value, 2) for name, value in found.items()}))


def documents(text: str, kind: str) -> list[str]:
    cuts = {"line": r"\n+", "paragraph": r"\n\n+", "file": r"(?!)"}
    return [one for one in re.split(cuts[kind], text) if one.strip()]


def sentences(text: str) -> list[str]:
    return [one for one in re.split(r"(?<=[.!?。])\s+", text) if 60 < len(one) < 600]


def in_batches(texts: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def milliseconds(config: PrepareConfig, batches: list[list[str]]) -> float:
    """Return the least CPU milliseconds of two runs over all batches."""
    Screener(config, config.sources[0]).screen(batches[0], lambda: [""] * len(batches[0]))
    times = []
    for _ in range(2):
        screener = Screener(config, config.sources[0])
        start = time.process_time()
        for batch in batches:
            screener.screen(batch, lambda: [])
        times.append(time.process_time() - start)
    return min(times) * 1000


if __name__ == "__main__":
    main()
