"""A seeded sample of the train split with a requested number of bytes of text, to train a tokenizer.

A small corpus is read completely. Of a large one, units are read in a pseudo-random order until there
is enough text, so that a sample of terabytes reads only gigabytes. Text is counted after unpacking and
cleaning, so compression and markup do not change the size of the sample. The sample does not depend
on the order in which documents are read.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from typing import Any

from preprocess.config import PrepareConfig, Source
from preprocess.reading.mixing import allot, has_natural_shares, shares
from preprocess.reading.units import Unit
from preprocess.tokenizers.sample import (
    READ_BYTES,
    in_drawing_order,
    mixed,
    read_kept,
    read_train,
    train_units,
    unit_bytes,
)

WHOLE = 4
"""A corpus with up to this many times the text of the sample is read completely."""

MEASURED_BYTES = 16 << 20
"""Raw bytes of a source from which the size of its text is estimated, if sources are weighted."""

Report = Callable[[int], None]
"""Function that is called with the raw bytes read so far."""


def sample_text(
    units: Sequence[Unit],
    config: PrepareConfig,
    wanted: int,
    seed: int,
    least_read: int = READ_BYTES,
    report: Report = lambda raw: None,
    inputs: list[dict[str, Any]] | None = None,
) -> list[tuple[int, str]]:
    """Read a sample in which each source has its share of the mixture.

    With equal weights and ``sampling_alpha`` 1, all documents are equally likely. Otherwise a source
    contributes its share or, if it has less text than that, all its text; then the other sources
    contribute more. If the sample is smaller than the text and ``config.deduplicate`` is set, equal
    texts count once.

    Args:
        units: all units of the corpus. Those of sources with ``split`` valid or test are not read.
        config: settings of prepare.
        wanted: size of the sample in UTF-8 bytes of cleaned text.
        seed: seed of the draw.
        least_read: minimum bytes to read, if the corpus has as many, so that the sample comes from
            many parts of the corpus.
        report: called after each unit.
        inputs: list to which the rows of what was read are added, as in `read_train`.

    Returns:
        Content hash and text of each document. Together the texts have ``wanted`` bytes, for which
        the last one may be truncated; if the train split is smaller, they are all of it. They are in
        the order of the corpus if the sample has all documents, otherwise in a pseudo-random order.
    """
    reader = _Reader(units, config, seed, report, inputs)
    weights = [source.weight for source in config.sources]
    if has_natural_shares(weights, config.sampling_alpha):
        whole, _ = reader.read(range(len(weights)), wanted, max(least_read, WHOLE * wanted))
        return whole.documents()
    sizes = [reader.estimate(number) for number in range(len(weights))]
    parts = shares(sizes, weights, config.sampling_alpha)
    drawn: dict[int, _Smallest] = {}
    used_up: set[int] = set()
    while True:
        amounts = [math.ceil(amount) for amount in allot(sizes, parts, wanted)]
        short = []
        for number, amount in enumerate(amounts):
            if number in used_up or not amount:
                continue
            if number in drawn and drawn[number].limit == amount:
                continue
            least = max(least_read * parts[number], WHOLE * amount)
            drawn[number], is_all = reader.read([number], amount, least)
            if is_all and drawn[number].bytes < amount:
                short.append(number)
        if not short:
            return [pair for number in sorted(drawn) for pair in drawn[number].documents()]
        # The estimate was too high: the other sources contribute the rest.
        used_up.update(short)
        for number in short:
            sizes[number] = drawn[number].bytes


class _Reader:
    """Reads the documents of the train split from units in a pseudo-random order."""

    def __init__(
        self,
        units: Sequence[Unit],
        config: PrepareConfig,
        seed: int,
        report: Report,
        inputs: list[dict[str, Any]] | None,
    ) -> None:
        self._inputs = inputs
        self._units = in_drawing_order(train_units(units, config), seed)
        self._config, self._seed, self._report = config, seed, report
        self._done = 0

    def read(self, sources: Sequence[int], wanted: int, least: float) -> tuple["_Smallest", bool]:
        """Read documents of some sources, and return the sample and whether all were read.

        Args:
            sources: indices of the sources.
            wanted: size of the sample in bytes of text.
            least: minimum bytes to read; either raw bytes or bytes of text must reach it.
        """
        sample = _Smallest(wanted, self._seed, self._config.deduplicate)
        raw = text_bytes = 0
        for unit in self._units:
            if unit.source not in sources:
                continue
            if sample.bytes >= wanted and max(raw, text_bytes) >= least:
                return sample, False
            for number, (_, _, text, content) in enumerate(
                read_train([unit], self._config, self._inputs)
            ):
                text_bytes += sample.add(content, (unit.index, number), text)
            raw += unit_bytes(unit)
            self._done += unit_bytes(unit)
            self._report(self._done)
        return sample, True

    def estimate(self, source: int) -> int:
        """Estimate the bytes of text of the train split of a source from a part of it."""
        of_source = [unit for unit in self._units if unit.source == source]
        settings = self._config.sources[source]
        total = sum(map(unit_bytes, of_source))
        raw = text = 0
        for unit in of_source:
            for block in read_kept(unit, settings, self._config, self._inputs):
                raw += block.raw_bytes
                text += sum(len(one.encode()) for one in block.texts)
                if text and raw >= MEASURED_BYTES:
                    break
            if text and raw >= MEASURED_BYTES:
                break
        return math.ceil(text * self._train_share(settings) * total / raw) if raw else 0

    def _train_share(self, source: Source) -> float:
        held_out = self._config.valid_fraction + self._config.test_fraction
        return 1.0 if source.split == "train" else 1.0 - held_out


class _Smallest:
    """The documents with the smallest hashes whose texts have at least ``limit`` bytes together.

    The result does not depend on the order in which documents are added. The memory is proportional
    to ``limit`` plus the size of one document.

    Args:
        limit: size of the sample in bytes of text.
        seed: seed of the hashes.
        distinct: if the texts that are added exceed the limit, equal texts count once.

    Attributes:
        bytes: bytes of the texts that are held.
    """

    def __init__(self, limit: int, seed: int, distinct: bool) -> None:
        self.limit, self._seed, self._distinct = limit, seed, distinct
        self.bytes = 0
        # A heap; its first entry is the document with the largest hash.
        self._heap: list[tuple[int, int, tuple[int, int], int, str]] = []
        self._held: set[int] | None = None  # the contents, once equal texts count once
        self._dropped: tuple[int, int] | None = None  # the smallest hash that was dropped

    def add(self, content: int, place: tuple[int, int], text: str) -> int:
        """Add a document, and return the bytes of its text.

        Args:
            content: its content hash.
            place: its place in the order of the corpus.
            text: its text.
        """
        size = len(text.encode())
        entry = (-mixed(content, self._seed), -content, place, size, text)
        if self._dropped and entry[:2] <= self._dropped:
            return size
        if self._held is not None:
            if content in self._held:
                return size
            self._held.add(content)
        heapq.heappush(self._heap, entry)
        self.bytes += size
        if self._distinct and self._held is None and self.bytes > self.limit:
            self._drop_repeats()
        while self.bytes - self._heap[0][3] >= self.limit:
            last = heapq.heappop(self._heap)
            self._dropped = last[:2]
            self.bytes -= last[3]
        return size

    def _drop_repeats(self) -> None:
        once = {entry[1]: entry for entry in self._heap}
        self._heap = list(once.values())
        heapq.heapify(self._heap)
        self._held = {-content for content in once}
        self.bytes = sum(size for _, _, _, size, _ in self._heap)

    def documents(self) -> list[tuple[int, str]]:
        """Return content hash and text of the documents; the last text is cut at the limit."""
        if self.bytes <= self.limit and self._held is None and self._dropped is None:
            entries = sorted(self._heap, key=lambda entry: entry[2])
        else:
            entries = sorted(self._heap, key=lambda entry: entry[:2], reverse=True)
        found = [(-content, text) for _, content, _, _, text in entries]
        if self.bytes > self.limit:
            content, text = found.pop()
            data = text.encode()
            if cut := data[: len(data) - self.bytes + self.limit].decode("utf-8", "ignore"):
                found.append((content, cut))
        return found
