"""Labelled texts as arrays, the share that is held out, and the texts that train and dev have in common.

Legend of shapes: n is the number of examples, k the number of labels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.reading.labelled.examples import LabelledText, Target

Truth = npt.NDArray[Any]
"""True or predicted labels, in the form that `Problem.truth` returns."""


@dataclass(frozen=True)
class Problem:
    """What is predicted for a text.

    Attributes:
        target: one label ("single"), any number of labels ("several"), or a number ("number").
        labels: the labels, sorted; empty if a number is predicted.
    """

    target: Target
    labels: tuple[str, ...]

    @classmethod
    def of(cls, examples: Sequence[LabelledText], target: Target) -> "Problem":
        """Return the problem whose labels are those of ``examples``."""
        if target == "number":
            return cls(target, ())
        return cls(target, tuple(sorted({label for one in examples for label in one.labels})))

    def truth(self, examples: Sequence[LabelledText]) -> Truth:
        """Return the true labels as an array.

        Returns:
            "single": the index of each example's label, int64 (n,); unknown labels have indices from k on.
            "several": bool (n, k + u), where u is the number of unknown labels, or 1 if there are none.
            "number": float64 (n,).
        """
        if self.target == "number":
            return np.array([one.value for one in examples], np.float64)
        unknown = sorted(self.unknown(examples))
        index = {label: number for number, label in enumerate([*self.labels, *unknown])}
        if self.target == "single":
            return np.array([index[one.labels[0]] for one in examples], np.int64)
        flags = np.zeros((len(examples), len(self.labels) + max(1, len(unknown))), np.bool_)
        for row, one in zip(flags, examples, strict=True):
            row[[index[label] for label in one.labels]] = True
        return flags

    def unknown(self, examples: Sequence[LabelledText]) -> Counter[str]:
        """Return how often each label occurs that is none of `labels`."""
        known = {*self.labels}
        if self.target == "number":
            return Counter()
        return Counter(label for one in examples for label in one.labels if label not in known)


class Split(NamedTuple):
    """Indices of the examples that are trained on, and of those that are held out."""

    train: list[int]
    dev: list[int]


def hold_out(examples: Sequence[LabelledText], share: float, seed: int) -> Split:
    """Hold a seeded share of the examples out, about the same share of each label.

    Equal texts are on the same side, so that the held-out texts are new to the model. Which side that
    is depends on the text, its label and the seed, and not on the order of the file.

    Args:
        examples: the examples.
        share: share to hold out, between 0 and 1.
        seed: seed of the choice.
    """
    groups: dict[tuple[str, str | None], list[int]] = {}
    for number, one in enumerate(examples):
        groups.setdefault(same(one), []).append(number)
    has_labels = all(one.value is None for one in examples)
    by_label: dict[tuple[str, ...], list[tuple[int, list[int]]]] = {}
    for text, members in groups.items():
        label = min(examples[number].labels for number in members) if has_labels else ()
        by_label.setdefault(label, []).append((_hash(repr(text), seed), members))
    split = Split([], [])
    for label, found in by_label.items():
        found.sort(key=lambda group: group[0])
        # A random start lets a rare label be held out as often as its number of texts says.
        start = _hash(repr(label), seed) / 2**64
        for rank, (_, members) in enumerate(found):
            is_dev = int((rank + 1) * share + start) > int(rank * share + start)
            (split.dev if is_dev else split.train).extend(members)
    return Split(sorted(split.train), sorted(split.dev))


def same(example: LabelledText) -> tuple[str, str | None]:
    """Return what two examples have in common if they count as the same text: all but spaces and case."""
    pair = None if example.pair is None else " ".join(example.pair.casefold().split())
    return " ".join(example.text.casefold().split()), pair


class Overlap(NamedTuple):
    """Texts that occur more than once.

    Attributes:
        dev: for each dev example whether its text is also in train, bool (n,).
        repeated: train examples whose text an earlier train example has.
        contradicting: distinct train texts that occur with different labels.
    """

    dev: npt.NDArray[np.bool_]
    repeated: int
    contradicting: int


def overlap_of(train: Sequence[LabelledText], dev: Sequence[LabelledText]) -> Overlap:
    """Find texts that occur more than once; spaces and case do not count."""
    labels: dict[tuple[str, str | None], set[tuple[str, ...]]] = {}
    for one in train:
        labels.setdefault(same(one), set()).add(tuple(sorted(one.labels)))
    return Overlap(
        np.array([same(one) in labels for one in dev], np.bool_),
        len(train) - len(labels),
        sum(len(found) > 1 for found in labels.values()),
    )


def _hash(text: str, seed: int) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), seed=seed % 2**64)
