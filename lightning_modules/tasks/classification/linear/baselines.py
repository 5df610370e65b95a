"""What a classifier on vectors must beat: the most frequent label, and bags of words."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.tasks.classification.examples import Problem, Truth
from lightning_modules.tasks.classification.linear.regression import (
    MANY,
    Weights,
    best_strength,
    decide,
    fit_logistic,
)
from lightning_modules.tasks.threads import threads_for
from preprocess.text.scripts import count_scripts

UNSPACED = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan")
"""Scripts that are written without spaces between words."""
LONG = 4
"""Mean characters between spaces above which texts in such a script have no spaces between words."""
WORD = r"(?u)\w+|[^\w\s]"
"""A word or a mark. The default of scikit-learn leaves out words of one letter, and marks such as "!"."""
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Values of C that are tried. They are higher than for vectors, because rows have length 1."""
PENALTIES = (0.1, 1.0, 10.0)
"""Strengths of ridge regression that are tried."""


class Baseline(NamedTuple):
    """Predictions of a baseline.

    Attributes:
        name: what it is, with what was used.
        predicted: predictions for the dev texts, in the form of `Problem.truth`.
    """

    name: str
    predicted: Truth


class Texts(NamedTuple):
    """Texts, or pairs of texts."""

    texts: Sequence[str]
    pairs: Sequence[str] | None


def majority(truth: Truth, problem: Problem, dev: int) -> Baseline:
    """Return the most frequent label or set of labels of train, or its mean number, for each dev text."""
    if problem.target == "number":
        mean = float(truth.mean())
        return Baseline(f"mean of train ({mean:.4g})", np.full(dev, mean))
    if problem.target == "several":
        rows = Counter(row.tobytes() for row in truth)
        most = np.frombuffer(min(rows, key=lambda row: (-rows[row], row)), np.bool_)
        names = [label for label, has in zip(problem.labels, most, strict=False) if has]
        return Baseline(f"majority ({_shown(', '.join(names))})", np.tile(most, (dev, 1)))
    label = int(np.bincount(truth).argmax())
    return Baseline(f"majority ({_shown(problem.labels[label])})", np.full(dev, label))


def _shown(label: str) -> str:
    return repr(label) if len(label) <= 30 else f"{label[:30]!r}..."


def bag_of_words(
    train: Texts, truth: Truth, dev: Texts, problem: Problem, weights: Weights, seed: int
) -> Baseline:
    """Return a linear model on TF-IDF of words and pairs of words.

    Texts that are written without spaces are read by characters instead, in n-grams of 1 to 3. With so
    many labels that logistic regression would take too long, the labels of the nearest train text are
    predicted.

    Args:
        train: the texts of train, and the second texts of pairs.
        truth: their labels.
        dev: the texts of dev.
        problem: what is predicted.
        weights: "balanced" weighs each label's texts by the inverse of their number.
        seed: seed of the part on which the strength of the penalty is chosen.
    """
    spaceless = _is_spaceless(train.texts)
    grams = "1-3-grams of characters" if spaceless else "1-2-grams of words"
    x, x_dev = _features(train, dev, spaceless)
    if not x.shape[1]:
        return Baseline(
            "tf-idf: the texts have no words", majority(truth, problem, len(dev.texts))[1]
        )
    # Sparse products have no threads; those between the many weights cost more than they save.
    with threads_for(0, 1, blas=True):
        if problem.target == "number":
            return Baseline(f"tf-idf of {grams}, ridge regression", _ridge(x, truth, x_dev, seed))
        if x.shape[0] * len(problem.labels) > MANY:
            return Baseline(f"tf-idf of {grams}, nearest text", _nearest(x, truth, x_dev))
        if problem.target == "several":
            found = _several(x, truth, x_dev, problem, weights, seed)
        else:
            strength = best_strength(x, truth, weights, seed, STRENGTHS)
            found = fit_logistic(x, truth, strength, weights).predict(x_dev)
    return Baseline(f"tf-idf of {grams}, logistic regression", found)


def _is_spaceless(texts: Sequence[str]) -> bool:
    counts = count_scripts(texts)
    unspaced = sum(counts[script] for script in UNSPACED)
    characters, words = (sum(map(len, parts)) for parts in (texts, map(str.split, texts)))
    return 2 * unspaced > counts.total() and characters > LONG * max(words, 1)


def _features(train: Texts, dev: Texts, spaceless: bool) -> tuple[Any, Any]:
    """Return sparse features of train and dev; those of the second texts of pairs follow the first."""
    from scipy.sparse import csr_array, hstack

    found: list[tuple[Any, Any]] = []
    for texts, others in ((train.texts, dev.texts), (train.pairs, dev.pairs)):
        if texts is None or others is None:
            continue
        vectorizer = _vectorizer(spaceless)
        try:
            found.append((vectorizer.fit_transform(texts), vectorizer.transform(others)))
        except ValueError:  # no text has a word
            found.append((csr_array((len(texts), 0)), csr_array((len(others), 0))))
    return tuple(hstack(parts).tocsr() for parts in zip(*found, strict=True))


def _vectorizer(spaceless: bool) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    if spaceless:
        return TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    return TfidfVectorizer(ngram_range=(1, 2), token_pattern=WORD, sublinear_tf=True)


def _several(
    x: Any, flags: Truth, x_dev: Any, problem: Problem, weights: Weights, seed: int
) -> npt.NDArray[np.bool_]:
    n, k = flags.shape[0], len(problem.labels)
    found = np.zeros((x_dev.shape[0], k))
    sizes = np.minimum(flags[:, :k].sum(0), n - flags[:, :k].sum(0))
    strength = STRENGTHS[1]
    if sizes.max():
        common = flags[:, int(sizes.argmax())].astype(np.int64)
        strength = best_strength(x, common, weights, seed, STRENGTHS)
    for label in range(k):
        if sizes[label]:
            model = fit_logistic(x, flags[:, label].astype(np.int64), strength, weights)
            found[:, label] = model.predict_proba(x_dev)[:, 1]
        else:
            found[:, label] = flags[:, label].all()
    return decide(found, problem)


def _nearest(x: Any, y: Truth, x_dev: Any) -> Truth:
    """Return the label or the labels of the train text with the highest cosine; rows have length 1."""
    found = np.empty(x_dev.shape[0], np.int64)
    for start in range(0, len(found), 256):
        found[start : start + 256] = (x_dev[start : start + 256] @ x.T).toarray().argmax(1)
    labels: Truth = y[found]
    return labels


def _ridge(x: Any, y: Truth, x_dev: Any, seed: int) -> Truth:
    """Return predictions of ridge regression; its penalty is chosen on a seeded part of the texts."""
    from sklearn.linear_model import Ridge

    order = np.random.default_rng(seed).permutation(len(y))
    part = max(1, len(y) // 5)
    tested, rest = order[:part], order[part:]

    def predicted(rows: Any, penalty: float, others: Any) -> Truth:
        found: Truth = Ridge(penalty, solver="sparse_cg").fit(x[rows], y[rows]).predict(others)
        return found

    def error(penalty: float) -> float:
        return float(np.square(predicted(rest, penalty, x[tested]) - y[tested]).mean())

    best = min(PENALTIES, key=error) if len(rest) else PENALTIES[-1]
    return predicted(order, best, x_dev)
