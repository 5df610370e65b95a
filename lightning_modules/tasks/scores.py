"""Scores of predictions: one label, several labels, or a number for each example.

Legend of shapes: n is the number of examples, k the number of labels.
"""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def label_scores(truth: Ints, predicted: Ints, labels: int) -> dict[str, float]:
    """Return ``accuracy`` and ``macro_f1`` of one label for each example.

    Macro-F1 is the mean of F1 over the labels that occur among the true or the predicted ones, as in
    scikit-learn's ``f1_score(average="macro")``.

    Args:
        truth: indices of the true labels, (n,). Labels that the model does not know have larger indices
            than those that it knows.
        predicted: indices of the predicted labels, (n,).
        labels: number of labels that the model knows.
    """
    labels = max(labels, int(truth.max()) + 1)
    right = truth == predicted
    hits = np.bincount(truth[right], minlength=labels)
    true, told = np.bincount(truth, minlength=labels), np.bincount(predicted, minlength=labels)
    return {"accuracy": float(right.mean()), "macro_f1": _mean_f1(hits, true, told)}


def label_set_scores(truth: Flags, predicted: Flags) -> dict[str, float]:
    """Return ``micro_f1``, ``macro_f1`` and ``exact_match`` of several labels for each example.

    Micro-F1 counts all decisions together. Macro-F1 is the mean over the labels that occur. Both are 0
    if there is no true and no predicted label. ``exact_match`` is the share of examples whose predicted
    labels are all right.

    Args:
        truth: the true labels, bool (n, k).
        predicted: the predicted labels, bool (n, k).
    """
    hits, true, told = ((truth & predicted).sum(0), truth.sum(0), predicted.sum(0))
    total = int(true.sum() + told.sum())
    return {
        "micro_f1": float(2 * hits.sum() / total) if total else 0.0,
        "macro_f1": _mean_f1(hits, true, told),
        "exact_match": float((truth == predicted).all(1).mean()),
    }


def number_scores(truth: Floats, predicted: Floats) -> dict[str, float]:
    """Return ``pearson``, ``spearman`` and ``mse`` of one number for each example.

    A correlation is NaN if all true or all predicted numbers are equal.

    Args:
        truth: the true numbers, (n,).
        predicted: the predicted numbers, (n,).
    """
    from scipy.stats import rankdata

    return {
        "pearson": _correlation(truth, predicted),
        "spearman": _correlation(rankdata(truth), rankdata(predicted)),
        "mse": float(np.square(truth - predicted).mean()),
    }


def by_label(truth: Flags, predicted: Flags) -> list[dict[str, float]]:
    """Return ``precision``, ``recall``, ``f1`` and ``examples`` (true ones) of each label, in order.

    Arguments as in `label_set_scores`. A score whose denominator is 0 is 0.
    """
    hits, true, told = ((truth & predicted).sum(0), truth.sum(0), predicted.sum(0))
    return [
        {
            "precision": float(hit / all_told) if all_told else 0.0,
            "recall": float(hit / all_true) if all_true else 0.0,
            "f1": float(2 * hit / (all_true + all_told)) if all_true + all_told else 0.0,
            "examples": int(all_true),
        }
        for hit, all_true, all_told in zip(hits, true, told, strict=True)
    ]


def _mean_f1(hits: Ints, true: Ints, told: Ints) -> float:
    """Return the mean F1 over the labels that occur, from counts by label."""
    total = true + told
    occurs = total > 0
    return float((2 * hits[occurs] / total[occurs]).mean()) if occurs.any() else 0.0


def _correlation(one: Floats, other: Floats) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = np.sqrt(np.square(one).sum() * np.square(other).sum())
    return float((one * other).sum() / scale) if scale > 0 else float("nan")
