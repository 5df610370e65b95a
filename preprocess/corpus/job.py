"""The settings of a run of prepare that its workers need."""

from dataclasses import dataclass

from preprocess.config import PrepareConfig
from preprocess.corpus.dedup import Kind
from preprocess.corpus.known import KnownCorpus, first_units
from preprocess.corpus.near.blocks import Blocks
from preprocess.work.shuffle import Layout

BYTES_A_TOKEN = 4
"""Raw bytes per token, approximately."""
LEAST_SHARDS = 2
"""Shards of a group of units, approximately; the last one of a group is smaller."""


@dataclass(frozen=True)
class Job:
    """Settings that every worker needs to prepare a unit.

    Attributes:
        work: folder of unfinished work.
        output: folder of the stage, for the shards and the rejects.
        config: settings of prepare.
        tokenizer: folder of the tokenizer.
        tokenizer_content: content hash in the tokenizer's manifest.
        vocabulary: number of ids of the tokenizer.
        buckets: number of buckets of content hashes.
        band_buckets: number of buckets of MinHash bands.
        units: number of units.
        group_units: number of units in a group of the last pass, from `group_units`.
        blocks: blocks in which near-duplicates are decided.
        known: known corpora, whose documents are dropped.
    """

    work: str
    output: str
    config: PrepareConfig
    tokenizer: str
    tokenizer_content: str
    vocabulary: int
    buckets: int
    band_buckets: int
    units: int
    group_units: int
    blocks: Blocks
    known: tuple[KnownCorpus, ...] = ()

    @property
    def groups(self) -> int:
        """Number of groups of units of the last pass."""
        return -(-self.units // self.group_units)

    def units_of(self, group: int) -> range:
        """Return the units of a group."""
        first = group * self.group_units
        return range(first, min(first + self.group_units, self.units))

    @property
    def known_units(self) -> int:
        """Number of units of all known corpora."""
        return first_units(self.known)[-1]

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of keys that are compared."""
        exact: tuple[Kind, ...] = ("hashes",) if self.config.deduplicate or self.known else ()
        near: tuple[Kind, ...] = ("bands",) if self.config.near_duplicates.similarity else ()
        return exact + near

    def layout(self, kind: Kind) -> Layout:
        """Return the layout of the keys of a kind."""
        buckets = self.buckets if kind == "hashes" else self.band_buckets
        return Layout(self.units + self.known_units, buckets, self.known_units)


def group_units(units: int, corpus_bytes: int, shard_tokens: int) -> int:
    """Return the number of units in a group, whose parts the last pass joins to shards.

    It is enough for a few shards, and in a large corpus for few groups. It depends on the corpus and
    the settings only, so that every rerun agrees.

    Args:
        units: number of units.
        corpus_bytes: raw bytes of the corpus.
        shard_tokens: tokens per shard.
    """
    wanted = LEAST_SHARDS * BYTES_A_TOKEN * shard_tokens * units // max(corpus_bytes, 1)
    return min(max(Layout(units, 1).run_units, wanted, 1), max(units, 1))
