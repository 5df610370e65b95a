"""Reading the files of a classifier, and telling what is in them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_modules.tasks.classification.config import ClassifyConfig
from lightning_modules.tasks.classification.examples import (
    Problem,
    Truth,
    hold_out,
    overlap_of,
)
from pipeline.console import Console
from preprocess.errors import UserError, one_line
from preprocess.reading.labelled.description import describe
from preprocess.reading.labelled.examples import LabelledText, Reading
from preprocess.reading.labelled.options import LabelledTextOptions
from preprocess.reading.labelled.texts import check_labels, read_labelled_texts

SHOWN = 5
"""Unknown labels that are shown."""


class ClassifyError(UserError):
    """Files that a classifier cannot be trained or tested on."""


@dataclass(frozen=True)
class Side:
    """The examples of train or dev.

    Attributes:
        examples: the examples.
        truth: their labels, as `Problem.truth` returns them.
    """

    examples: tuple[LabelledText, ...]
    truth: Truth

    @property
    def texts(self) -> list[str]:
        """The texts."""
        return [one.text for one in self.examples]

    @property
    def pairs(self) -> list[str] | None:
        """The second texts, or None if the examples are no pairs."""
        if self.examples[0].pair is None:
            return None
        return [one.pair or "" for one in self.examples]

    @property
    def sides(self) -> tuple[list[str], ...]:
        """The texts, and the second texts if the examples are pairs."""
        return (self.texts,) if self.pairs is None else (self.texts, self.pairs)


@dataclass(frozen=True)
class Data:
    """The examples of a training.

    Attributes:
        problem: what is predicted.
        train: the training examples.
        dev: the examples that are scored.
        figures: what was counted, for the metrics.
    """

    problem: Problem
    train: Side
    dev: Side
    figures: dict[str, Any] = field(default_factory=dict)


def read_file(path: str, options: LabelledTextOptions, console: Console) -> Reading[LabelledText]:
    """Read labelled texts, and print how they were read and what was left out.

    Raises:
        UserError: the file cannot be read, or has no examples.
    """
    reading = read_labelled_texts(path, options)
    first, *others = describe(reading)
    console.line(first)
    for line in others:
        console.line(line)
    return reading


def read_data(file: str, config: ClassifyConfig, console: Console) -> Data:
    """Read the training file and the dev file, or hold a share of the training file out.

    Raises:
        UserError: a file cannot be read, or a classifier cannot be trained on it.
    """
    reading = read_file(file, config.reading, console)
    check_labels(reading)
    if config.dev is None:
        split = hold_out(reading.examples, config.dev_share, config.seed)
        train, dev = (tuple(reading.examples[number] for number in numbers) for numbers in split)
        if not train or not dev:
            different = len({(one.text, one.pair) for one in reading.examples})
            raise ClassifyError(
                f"{file}: {different:,} different texts are too few to hold a share of "
                f"{config.dev_share:g} out; name a dev file with dev=FILE, or change dev_share"
            )
        console.line(
            f"dev: {len(dev):,} of the {len(reading.examples):,} texts, held out with seed "
            f"{config.seed}; dev=FILE names a file instead"
        )
    else:
        # What a text has is the same in both files, also if it was found from the first.
        options = config.reading.model_copy(update={"target": reading.target})
        train, dev = reading.examples, read_file(config.dev, options, console).examples
    _check_pairs(file, train, config.dev or file, dev)
    problem = Problem.of(train, reading.target)
    data = Data(problem, Side(train, problem.truth(train)), Side(dev, problem.truth(dev)))
    _check_train(file, data)
    data.figures.update(
        {
            "target": problem.target,
            "labels": len(problem.labels),
            "train": len(train),
            "dev": len(dev),
            "held_out": config.dev is None,
            "dropped": dict(reading.dropped),
        }
    )
    tell_labels(problem, dev, console)
    _tell_overlap(data, config, console)
    return data


def _check_pairs(
    file: str, train: Sequence[LabelledText], dev_file: str, dev: Sequence[LabelledText]
) -> None:
    kinds = [{one.pair is not None for one in examples} for examples in (train, dev)]
    for path, found in zip((file, dev_file), kinds, strict=True):
        if len(found) > 1:
            raise ClassifyError(f"{path}: some records are pairs of texts and others are not")
    if kinds[0] != kinds[1]:
        raise ClassifyError(
            f"one of {file} and {dev_file} has pairs of texts and the other has not; set pair=... to the "
            "column of the second text"
        )


def _check_train(file: str, data: Data) -> None:
    """Raise ClassifyError if the training part has one label, which the whole file has not."""
    problem, truth = data.problem, data.train.truth
    if problem.target != "several" and len({*truth.tolist()}) < 2:
        raise ClassifyError(
            f"{file}: all texts that are left for training have one label; name a dev file with dev=FILE, "
            "or give more texts"
        )


def tell_labels(problem: Problem, dev: Sequence[LabelledText], console: Console) -> None:
    """Print which dev labels cannot be predicted.

    Raises:
        ClassifyError: none of them can be.
    """
    if problem.target == "number":
        return
    unknown = problem.unknown(dev)
    if unknown and not any(label in problem.labels for one in dev for label in one.labels):
        raise ClassifyError(
            f"none of the labels of these texts is in training ({_some(unknown)}; training has "
            f"{_some(problem.labels)}); name the column of the labels with label=..., or another file"
        )
    if unknown:
        shown = ", ".join(
            f"{one_line(label)[:30]!r} {count:,}" for label, count in unknown.most_common(SHOWN)
        )
        console.warn(
            f"labels that are in no training text, and so are never predicted and count as wrong: "
            f"{len(unknown):,} ({shown}{', …' if len(unknown) > SHOWN else ''})"
        )


def _some(labels: Iterable[str]) -> str:
    """Return a few labels for a message."""
    found = [f"{one_line(label)[:30]!r}" for label in labels]
    return ", ".join([*found[:SHOWN], "…"] if len(found) > SHOWN else found)


def _tell_overlap(data: Data, config: ClassifyConfig, console: Console) -> None:
    """Print how many texts occur more than once.

    Raises:
        ClassifyError: all dev texts are also training texts.
    """
    found = overlap_of(data.train.examples, data.dev.examples)
    shared = int(found.dev.sum())
    data.figures.update(
        {
            "repeated_in_train": found.repeated,
            "contradicting_in_train": found.contradicting,
            "dev_in_train": shared,
        }
    )
    if shared == len(data.dev.examples):
        raise ClassifyError(
            f"all {shared:,} dev texts are also training texts, so that their scores would say nothing "
            "about new text; name another file with dev=FILE, or leave dev out to hold a share of the "
            "training file out"
        )
    if shared:
        console.warn(
            f"{shared:,} of {len(data.dev.examples):,} dev texts are also training texts; the table also "
            "has the scores without them"
        )
    if found.repeated:
        clash = f"; {found.contradicting:,} have different labels" if found.contradicting else ""
        console.line(f"{found.repeated:,} training texts repeat an earlier one{clash}")
