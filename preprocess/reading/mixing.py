"""Shares of the sources in a sample or in a pass over the training data.

A source's share is proportional to weight x size^alpha; shares sum to 1 (Conneau & Lample 2019,
"Cross-lingual Language Model Pretraining", section 3.1). With alpha 1 and equal weights, shares are
proportional to size; with alpha 0 they are proportional to the weights.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ONE = 1 << 32
"""1.0 as a fixed-point number with 32 fractional bits. With floats, rounding could make a shard of
repeat factor 1 occur 0 or 2 times in a pass."""


def shares(sizes: Sequence[int], weights: Sequence[float], alpha: float) -> list[float]:
    """Return the share of each source; an empty source has share 0.

    Args:
        sizes: sizes of the sources, all in one unit: raw bytes for a sample; tokens and document
            ends of the train split for training.
        weights: `Source.weight` of each source.
        alpha: `PrepareConfig.sampling_alpha`.
    """
    # Powers of shares instead of sizes, which may exceed a float's precision.
    total = sum(sizes)
    scores = [w * (n / total) ** alpha if n else 0.0 for n, w in zip(sizes, weights, strict=True)]
    whole = sum(scores)
    return [score / whole for score in scores] if whole else scores


def has_natural_shares(weights: Sequence[float], alpha: float) -> bool:
    """Return True if each source's share is proportional to its size."""
    return alpha == 1 and len(set(weights)) <= 1


def allot(sizes: Sequence[int], parts: Sequence[float], wanted: int) -> list[float]:
    """Return how much each source contributes to a sample.

    A source contributes its share, but at most its size. If a source is too small for its share,
    the others contribute the rest in proportion to their shares.

    Args:
        sizes: size of each source.
        parts: share of each source, from `shares`.
        wanted: size of the sample, in the unit of ``sizes``.

    Returns:
        The amount of each source, in the unit of ``sizes``. The amounts sum to ``wanted``, or to less
        if the sources with a share are smaller.
    """
    amounts = [0.0] * len(sizes)
    open_sources = {number for number, part in enumerate(parts) if part > 0}
    rest = float(wanted)
    while open_sources:
        whole = sum(parts[number] for number in sorted(open_sources))
        used_up = {
            number for number in open_sources if parts[number] / whole * rest >= sizes[number]
        }
        for number in used_up or open_sources:
            amounts[number] = float(sizes[number]) if used_up else parts[number] / whole * rest
        if not used_up:
            break
        rest -= sum(sizes[number] for number in used_up)
        open_sources -= used_up
    return amounts


def repeat_factors(sizes: Mapping[str, int], parts: Mapping[str, float]) -> dict[str, float]:
    """Return how often each source occurs in a pass on average: share x total size / size."""
    total = sum(sizes.values())
    return {name: parts[name] * total / size if size else 0.0 for name, size in sizes.items()}


class Occurrences(NamedTuple):
    """The shards of a pass in its order; a shard occurs once per repeat.

    Attributes:
        shards: index of the shard, shape (occurrences,).
        repeats: how often the shard occurs earlier in the order of the plan, shape (occurrences,).
    """

    shards: npt.NDArray[np.int64]
    repeats: npt.NDArray[np.int64]


class PassPlan:
    """Number of occurrences of each shard in each pass over the training data, in closed form.

    A shard of a source with repeat factor r occurs ``floor((e + 1) r + u) - floor(e r + u)`` times
    in pass e, which is r on average and differs from r by less than 1. The phase u in [0, 1) differs
    between the shards of a source: if they are laid around a circle of circumference 1 in a seeded
    order, with lengths proportional to their sizes, u is where the shard starts. So over any
    consecutive passes, the amount of a source differs from its share by at most its largest shard.
    With factor 1, every shard occurs once per pass.

    A position is a token or a document end.

    Args:
        sizes: number of positions of each shard, shape (shards,).
        sources: source of each shard.
        factors: repeat factor of each source, 1 if not given.
        seed: seed of the order of shards.

    Attributes:
        sizes: as given.
        sources: index of the source of each shard, in the order of their first shards, shape (shards,).
        seed: as given.
    """

    def __init__(
        self,
        sizes: npt.NDArray[np.int64],
        sources: Sequence[str],
        factors: Mapping[str, float],
        seed: int,
    ) -> None:
        self.sizes, self.seed = sizes, seed
        names = {name: number for number, name in enumerate(dict.fromkeys(sources))}
        self.sources = np.array([names[name] for name in sources], np.int64)
        fixed = {name: round(factors.get(name, 1.0) * ONE) for name in names}
        self._factors = np.array([fixed[name] for name in sources], np.int64)
        self._phases = np.zeros(len(sources), np.int64)
        for name, number in names.items():
            if fixed[name] != ONE:
                shards = np.flatnonzero(self.sources == number)
                self._phases[shards] = _phases(sizes[shards], number, seed)

    @property
    def mean_length(self) -> int:
        """Average number of positions of a pass, rounded."""
        return round(float(self._factors / ONE @ self.sizes))

    def counts(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """Return how often each shard occurs in the passes [first, end), shape (passes, shards)."""
        passes = np.arange(first, end + 1)[:, None]
        occurrences = (passes * self._factors + self._phases) >> 32
        return np.diff(occurrences, axis=0)

    def lengths(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """Return the number of positions of each of the passes [first, end), shape (passes,)."""
        if (self._factors == ONE).all():
            return np.full(end - first, self.sizes.sum())
        return self.counts(first, end) @ self.sizes

    def occurrences(self, number: int, is_shuffled: bool) -> Occurrences:
        """Return the shards of a pass, in their own order or in a seeded one."""
        (counts,) = self.counts(number, number + 1)
        shards = np.repeat(np.arange(len(counts)), counts)
        repeats = np.arange(len(shards)) - np.repeat(np.cumsum(counts) - counts, counts)
        if is_shuffled:
            order = seeded(self.seed, number).permutation(len(shards))
            shards, repeats = shards[order], repeats[order]
        return Occurrences(shards, repeats)


def _phases(sizes: npt.NDArray[np.int64], source: int, seed: int) -> list[int]:
    """Return the phases of one source's shards, as fixed-point numbers."""
    random = seeded(seed, -1, source, 0)
    order = random.permutation(len(sizes))
    turn = int(random.randint(0, ONE, dtype=np.int64))
    total = int(sizes.sum())
    phases = [0] * len(sizes)
    begin = 0
    for number in order.tolist():
        phases[number] = (begin * ONE // total + turn) % ONE
        begin += int(sizes[number])
    return phases


def seeded(*seed: int) -> np.random.RandomState:
    """Return a random generator seeded by any integers, reduced modulo 2^32."""
    # NumPy guarantees the stream of this legacy generator, so orders survive an upgrade of NumPy.
    return np.random.RandomState([number & 0xFFFFFFFF for number in seed])
