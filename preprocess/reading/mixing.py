"""How much of each source goes into a sample or a pass of training.

A source's share is its weight times its size to the power alpha, all shares summing to 1 (Conneau &
Lample 2019, "Cross-lingual Language Model Pretraining", section 3.1): alpha 1 keeps the corpus as it
is, alpha 0 goes by the weights alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

ONE = 1 << 32
"""1.0 in the fixed point of `PassPlan`: in floats, a factor of 1 could give 0 or 2 by rounding."""


def shares(sizes: Sequence[int], weights: Sequence[float], alpha: float) -> list[float]:
    """The share of each source, 0 for one of size 0; of no size at all, no share.

    Args:
        sizes: of each source, in any one unit: raw bytes for a sample, positions (tokens and
            document ends) of the train split for training.
        weights: ``Source.weight`` of each.
        alpha: ``PrepareConfig.sampling_alpha``.
    """
    # Powers of shares and not of sizes: those may be beyond a float's precision.
    total = sum(sizes)
    parts = [w * (n / total) ** alpha if n else 0.0 for n, w in zip(sizes, weights, strict=True)]
    whole = sum(parts)
    return [part / whole for part in parts] if whole else parts


def as_it_is(weights: Sequence[float], alpha: float) -> bool:
    """Whether every source keeps the share it has by its size."""
    return alpha == 1 and len(set(weights)) <= 1


def allot(sizes: Sequence[int], parts: Sequence[float], wanted: int) -> list[float]:
    """How much each source gives to a sample of ``wanted``: its share, and at most all it has.

    What a source cannot give, the others give by their shares: a sample is as large as was asked
    where there is text enough, and then a small source's share may stay below what it should be.
    """
    given = [0.0] * len(sizes)
    left = {number for number, part in enumerate(parts) if part > 0}
    rest = float(wanted)
    while left:
        whole = sum(parts[number] for number in sorted(left))
        full = {number for number in left if parts[number] / whole * rest >= sizes[number]}
        for number in full or left:
            given[number] = float(sizes[number]) if full else parts[number] / whole * rest
        if not full:
            break
        rest -= sum(sizes[number] for number in full)
        left -= full
    return given


def repeat_factors(sizes: Mapping[str, int], parts: Mapping[str, float]) -> dict[str, float]:
    """How often a pass holds each source on average, so that it has its share: share x total / size."""
    total = sum(sizes.values())
    return {name: parts[name] * total / size if size else 0.0 for name, size in sizes.items()}


class PassPlan:
    """How often each shard enters each pass, by arithmetic alone.

    In pass e a shard of a source with the repeat factor r enters
    ``floor((e + 1) r + u) - floor(e r + u)`` times: r on average, never off by one or more. Its phase
    u in [0, 1) is where the shard begins when the source's shards lie, in a seeded order, around a
    circle; so over any run of passes what enters of a source is within its largest shard of what
    should. A factor of 1 gives every shard once a pass, whatever its phase.

    Args:
        sizes: (shards,) positions of each.
        sources: the source of each shard.
        factors: the repeat factor of each source; one that is not named has 1.
        seed: of the phases.
    """

    def __init__(
        self,
        sizes: npt.NDArray[np.int64],
        sources: Sequence[str],
        factors: Mapping[str, float],
        seed: int,
    ) -> None:
        self._sizes = sizes
        names = dict.fromkeys(sources)
        known = {name: round(factors.get(name, 1.0) * ONE) for name in names}
        self._factors = np.array([known[name] for name in sources], np.int64)
        self._phases = np.zeros(len(sources), np.int64)
        for number, name in enumerate(names):
            if known[name] != ONE:
                own = np.array([i for i, source in enumerate(sources) if source == name])
                self._phases[own] = _phases(sizes[own], number, seed)

    @property
    def mean_length(self) -> int:
        """Positions of a pass on average, rounded."""
        return round(float(self._factors / ONE @ self._sizes))

    def counts(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """(end - first, shards): how often each shard is in each of the passes [first, end)."""
        passes = np.arange(first, end + 1)[:, None]
        entered = (passes * self._factors + self._phases) >> 32
        return np.diff(entered, axis=0)

    def lengths(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """(end - first,) positions of each of the passes [first, end)."""
        if (self._factors == ONE).all():
            return np.full(end - first, self._sizes.sum())
        return self.counts(first, end) @ self._sizes


def _phases(sizes: npt.NDArray[np.int64], source: int, seed: int) -> list[int]:
    draw = seeded(seed, -1, source, 0)
    order = draw.permutation(len(sizes))
    turn = int(draw.randint(0, ONE, dtype=np.int64))
    total = int(sizes.sum())
    phases = [0] * len(sizes)
    begin = 0
    for number in order.tolist():
        phases[number] = (begin * ONE // total + turn) % ONE
        begin += int(sizes[number])
    return phases


def seeded(*seed: int) -> np.random.RandomState:
    """A generator of those numbers, any of them, negative ones too."""
    # The legacy generator's stream is frozen by NumPy's policy: an order outlives an upgrade.
    # It takes 32 bits a number, any of which a user may have written as below 0.
    return np.random.RandomState([number & 0xFFFFFFFF for number in seed])
