"""What filters, masks and decontamination did: counts, and a few examples for each reason.

Reports of parts of a corpus can be joined in any order with the same result.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import xxhash

from preprocess.text.quality.removed_lines import Removed

EXAMPLES = 3
"""Examples that are kept for each reason."""
EXAMPLE_CHARACTERS = 300
"""Characters of an example."""

_SEED = 1


class Report:
    """Counts and examples.

    Attributes:
        removed_lines, removed_characters: what was removed from texts, by reason.
        masked: replaced pieces of personal data by kind.
        without_url: documents that were compared with lists of URLs, but have no URL.
        benchmarks: for each benchmark, the numbers of its items, of items without a text and of items
            that are too short to be searched.
        matched: for each benchmark, the items that a document matched.
        examples: for each reason, (key, text) of the examples with the smallest keys.
    """

    def __init__(self) -> None:
        self.removed_lines: Counter[str] = Counter()
        self.removed_characters: Counter[str] = Counter()
        self.masked: Counter[str] = Counter()
        self.without_url = 0
        self.benchmarks: dict[str, list[int]] = {}
        self.matched: dict[str, set[int]] = {}
        self.examples: dict[str, list[tuple[int, str]]] = {}

    def add_example(self, reason: str, text: str) -> None:
        """Add an example; those with the smallest hashes are kept, so that the order has no effect."""
        shown = text[:EXAMPLE_CHARACTERS]
        data = shown.encode("utf-8", "backslashreplace")
        key = xxhash.xxh3_64_intdigest(data, seed=_SEED)
        held = self.examples.setdefault(reason, [])
        if len(held) < EXAMPLES or key < held[-1][0]:
            self.examples[reason] = _smallest([*held, (key, data.decode())])

    def add_removed(self, removed: Removed) -> None:
        """Count what was removed from a text that is kept."""
        self.removed_lines[removed.reason] += removed.lines
        self.removed_characters[removed.reason] += removed.characters
        self.add_example(removed.reason, removed.example)

    def add_matched(self, items: Mapping[str, Iterable[int]]) -> None:
        """Add items of benchmarks that were found."""
        for name, numbers in items.items():
            self.matched.setdefault(name, set()).update(numbers)

    def add(self, saved: Mapping[str, Any]) -> None:
        """Add the report of another part, from `saved`."""
        self.removed_lines.update(saved.get("removed_lines", {}))
        self.removed_characters.update(saved.get("removed_characters", {}))
        self.masked.update(saved.get("masked", {}))
        self.without_url += saved.get("without_url", 0)
        self.benchmarks.update(saved.get("benchmarks", {}))
        self.add_matched(saved.get("matched", {}))
        for reason, examples in saved.get("examples", {}).items():
            held = self.examples.get(reason, [])
            self.examples[reason] = _smallest([*held, *((key, text) for key, text in examples)])

    def saved(self) -> dict[str, Any]:
        """Return the report as JSON types, with sorted keys and without what is empty."""
        every = {
            "removed_lines": dict(sorted(self.removed_lines.items())),
            "removed_characters": dict(sorted(self.removed_characters.items())),
            "masked": dict(sorted(self.masked.items())),
            "without_url": self.without_url,
            "benchmarks": self.benchmarks,
            "matched": {name: sorted(found) for name, found in sorted(self.matched.items())},
            "examples": {
                reason: [list(example) for example in found]
                for reason, found in sorted(self.examples.items())
            },
        }
        return {name: value for name, value in every.items() if value}

    def summary(self) -> dict[str, Any]:
        """Return the figures for ``stats.json``: as `saved`, with the number of matched items."""
        saved = self.saved()
        saved["examples"] = {
            reason: [text for _, text in found] for reason, found in sorted(self.examples.items())
        }
        saved["benchmarks"] = {
            name: {
                **dict(zip(("items", "without_text", "short"), numbers, strict=True)),
                "matched": len(self.matched.get(name, ())),
            }
            for name, numbers in self.benchmarks.items()
        }
        saved.pop("matched", None)
        return {name: value for name, value in saved.items() if value}


def _smallest(examples: list[tuple[int, str]]) -> list[tuple[int, str]]:
    # Equal texts have equal keys and count once.
    return heapq.nsmallest(EXAMPLES, set(examples))
