"""Linear probes of the layers of a model for the tags of tokens, with control tasks.

A probe with a high accuracy shows that a layer encodes the tags only if the probe could not simply
have learned the tag of each word. The control task (Hewitt and Liang 2019) gives each word a random tag,
which only memorising words can learn. Selectivity is the accuracy minus that of the control task.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_modules.tasks.intervals import Interval, bootstrap_intervals
from lightning_modules.tasks.probing.linear_probe import Labels, ProbeError, fit_linear
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.scratch import allocate
from preprocess.reading.labelled.examples import TaggedSentence

MEMORY_BYTES = 1 << 30
"""Vectors that need more bytes are kept in a temporary file."""

MANY = 50
"""Training tokens below which their number does not limit the number of tags."""

Progress = Callable[[int, str], None]
Words = Sequence[Sequence[str]]


@dataclass(frozen=True)
class LayerScore:
    """Scores of the probe of a layer on the dev sentences.

    Attributes:
        layer: number of the layer; 0 is the input.
        accuracy: share of the tokens whose tag is predicted.
        control: accuracy on the control task; None if it was not run.
        selectivity: accuracy minus control.
        converged: False if a probe did not converge, so that its accuracy may be too low.
    """

    layer: int
    accuracy: Interval
    control: Interval | None
    selectivity: Interval | None
    converged: bool


@dataclass(frozen=True)
class TagProbe:
    """Scores of the baselines and of the probes of all layers.

    Attributes:
        tags: number of different tags in the training sentences.
        train_tokens: number of training tokens.
        dev_tokens: number of dev tokens.
        unseen_words: share of the dev tokens whose word is not in the training sentences.
        unseen_tags: number of dev tokens whose tag is not in the training sentences; no probe can
            predict it.
        repeated: number of dev sentences that are also training sentences.
        majority: accuracy of the most frequent tag.
        word_tag: accuracy of the most frequent tag of each word, and of the most frequent tag for
            words that are not in the training sentences.
        layers: scores of each layer.
    """

    tags: int
    train_tokens: int
    dev_tokens: int
    unseen_words: float
    unseen_tags: int
    repeated: int
    majority: Interval
    word_tag: Interval
    layers: tuple[LayerScore, ...]


def probe_tags(
    model: BiLM,
    train: Sequence[TaggedSentence],
    dev: Sequence[TaggedSentence],
    seed: int,
    control: bool = True,
    case: Callable[[str], str] = str,
    progress: Progress = lambda done, note: None,
) -> TagProbe:
    """Probe the layers of a model for the tags of tokens.

    Args:
        model: the model; the vector of a token has the forward half at its last subword and the
            backward half at its first.
        train: sentences to learn from.
        dev: sentences to test on.
        seed: seed of the control task and of the bootstrap.
        control: also learn the control task.
        case: applied to each token before it is embedded, such as ``str.lower``.
        progress: called with the number of steps done, of `steps_of`, and what is done next.

    Raises:
        ProbeError: there are no sentences, or the training sentences have one tag only, or more tags
            than half their tokens; or scikit-learn is not installed.
    """
    if not train or not dev:
        raise ProbeError(
            f"no sentences to {'test on' if train else 'learn from'}; name another file, or another "
            "dev_share"
        )
    words, dev_words = (
        [[case(word) for word in one.tokens] for one in some] for some in (train, dev)
    )
    names = sorted({tag for one in train for tag in one.tags})
    if len(names) < 2:
        raise ProbeError(
            f"all training tokens have the tag '{names[0][:40]}'; name another column of the file"
        )
    tokens = sum(len(one.tags) for one in train)
    if 2 * len(names) > tokens >= MANY:
        raise ProbeError(
            f"{len(names):,} different tags in {tokens:,} training tokens ('{names[0][:40]}', "
            f"'{names[1][:40]}', ...), which cannot be learned; name another column of the file"
        )
    numbers = {name: number for number, name in enumerate(names)}
    gold = np.array([numbers[tag] for one in train for tag in one.tags])
    # -1 is a tag that is never predicted.
    wanted = np.array([numbers.get(tag, -1) for one in dev for tag in one.tags])
    types = sorted({word for some in (words, dev_words) for one in some for word in one})
    labels = control_labels(types, np.bincount(gold), seed)
    control_gold, control_wanted = (
        np.array([labels[word] for one in some for word in one]) for some in (words, dev_words)
    )
    known = {word for one in words for word in one}
    right = {
        "majority": wanted == np.bincount(gold).argmax(),
        "word_tag": wanted == _most_frequent(words, gold, dev_words),
    }
    converged = [True] * model.depth
    done = 0
    progress(done, "vectors of the sentences")
    features, dev_features = _vectors(model, words), _vectors(model, dev_words)
    for layer in range(model.depth):
        tasks = [("task", gold, wanted)]
        if control:
            tasks.append(("control", control_gold, control_wanted))
        for name, learned, tested in tasks:
            done += 1
            progress(done, f"layer {layer}, {name}")
            fit = fit_linear(features[layer], learned, dev_features[layer])
            converged[layer] &= fit.converged
            right[f"{name} {layer}"] = fit.predicted == tested
    learned_from = {(one.tokens, one.tags) for one in train}
    scores = _scores(right, [len(one) for one in dev_words], seed)
    return TagProbe(
        len(names),
        len(gold),
        len(wanted),
        float(np.mean([word not in known for one in dev_words for word in one])),
        int((wanted == -1).sum()),
        sum((one.tokens, one.tags) in learned_from for one in dev),
        scores["majority"],
        scores["word_tag"],
        tuple(
            LayerScore(
                layer,
                scores[f"task {layer}"],
                scores.get(f"control {layer}"),
                scores.get(f"selectivity {layer}"),
                converged[layer],
            )
            for layer in range(model.depth)
        ),
    )


def steps_of(model: BiLM, control: bool) -> int:
    """Return the number of steps that `probe_tags` reports."""
    return 1 + model.depth * (1 + control)


def control_labels(types: Sequence[str], counts: Labels, seed: int) -> dict[str, int]:
    """Return a random label for each word type, drawn from the distribution of the task's labels.

    Args:
        types: the different words, in an order that is always the same.
        counts: how often each label occurs in the task, shape (labels,).
        seed: seed of the draws.

    Source: Hewitt and Liang 2019, section 2.
    """
    drawn = np.random.default_rng(seed).choice(len(counts), len(types), p=counts / counts.sum())
    return dict(zip(types, drawn.tolist(), strict=True))


def _most_frequent(words: Words, gold: Labels, dev_words: Words) -> Labels:
    counts: dict[str, Counter[int]] = {}
    for word, label in zip((word for one in words for word in one), gold.tolist(), strict=True):
        counts.setdefault(word, Counter())[label] += 1
    # The first of equally frequent labels, so that the order of the sentences does not matter.
    best = {word: min(found, key=lambda n: (-found[n], n)) for word, found in counts.items()}
    majority = int(np.bincount(gold).argmax())
    return np.array([best.get(word, majority) for one in dev_words for word in one])


def _vectors(model: BiLM, words: Words) -> npt.NDArray[np.float32]:
    """Return the vectors of all tokens, shape (layers, tokens, dim)."""
    found = allocate((model.depth, sum(map(len, words)), model.dim), MEMORY_BYTES)
    start = 0
    for embedding in model.iter_embed(words, unit="word", pooling="direction"):
        end = start + embedding.vectors.shape[1]
        found[:, start:end] = embedding.vectors
        start = end
    assert start == found.shape[1], "each word has a vector"
    return found


def _scores(
    right: dict[str, npt.NDArray[np.bool_]], lengths: Sequence[int], seed: int
) -> dict[str, Interval]:
    """Return the accuracy of each prediction, and the selectivity of each layer.

    Sentences are drawn for the intervals, not tokens, because the tokens of a sentence depend on each
    other.
    """
    tokens = np.array(lengths)
    starts = np.cumsum(tokens) - tokens
    sums = {name: np.add.reduceat(one, starts, dtype=np.int64) for name, one in right.items()}

    def statistic(drawn: npt.NDArray[np.int64]) -> dict[str, float]:
        total = tokens[drawn].sum()
        found = {name: float(one[drawn].sum() / total) for name, one in sums.items()}
        for name in sums:
            kind, _, layer = name.partition(" ")
            if kind == "control":
                found[f"selectivity {layer}"] = found[f"task {layer}"] - found[name]
        return found

    return bootstrap_intervals(statistic, len(tokens), seed)
