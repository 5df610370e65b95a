"""What a neural head is trained for: its loss, and the score that chooses the best epoch.

Legend of shapes: n is the number of texts, k the number of labels. Truth is as
`lightning_modules.tasks.classification.examples` makes it: "single" int64 (n,), "several" bool (n, k) or
more columns, "number" float64 (n,).
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.tasks.scores import label_scores, label_set_scores
from preprocess.reading.labelled.examples import Target

Truth = npt.NDArray[Any]
Weights = Literal["none", "balanced"]
THRESHOLD = 0.5
"""Probability from which a label is predicted, if a text may have several."""


class Objective:
    """Loss and score of one kind of target.

    Args:
        target: what is predicted.
        truth: the training labels, from which weights are computed.
        labels: number of labels; ignored for a number.
        weights: "balanced" weighs the texts of a label by the inverse of their number.

    Attributes:
        target, weights: the arguments.
        outputs: number of outputs of a head, k.
        center, scale: mean and standard deviation of the numbers of the training texts; 0 and 1 for
            labels.
    """

    def __init__(
        self, target: Target, truth: Truth, labels: int, weights: Weights = "none"
    ) -> None:
        self.target, self.outputs = target, 1 if target == "number" else labels
        self.weights = weights
        self.center, self.scale = 0.0, 1.0
        if target == "number":
            self.center, self.scale = float(truth.mean()), float(truth.std()) or 1.0
        self._weight = _weights(target, truth, labels) if weights == "balanced" else None

    def tensor(self, truth: Truth) -> Tensor:
        """Return labels as the tensor that `loss` and `score` read; a column of unknown labels is left out."""
        if self.target == "single":
            return torch.from_numpy(truth.astype(np.int64))
        if self.target == "several":
            return torch.from_numpy(truth[:, : self.outputs].astype(np.float32))
        return torch.from_numpy(truth.astype(np.float32))

    def loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar; texts with an unknown label do not count.

        It is the cross-entropy in nats, for several labels the sum of the binary ones, and for a number
        the squared error in units of the variance.
        """
        weight = None if self._weight is None else self._weight.to(outputs.device)
        if self.target == "single":
            known = truth < self.outputs
            each = F.cross_entropy(outputs[known], truth[known], weight, reduction="none")
            return each.sum() / max(1, len(each))
        if self.target == "several":
            costs = None
            if weight is not None:
                costs = torch.where(truth.bool(), weight[0], weight[1])
            return F.binary_cross_entropy_with_logits(outputs, truth, costs, reduction="sum") / max(
                1, len(truth)
            )
        return ((outputs[:, 0] - truth) / self.scale).square().mean()

    def score(self, outputs: Tensor, truth: Tensor) -> float:
        """Return the score that chooses the best epoch; higher is better.

        It is the accuracy, for several labels the micro-averaged F1, with balanced weights the macro-averaged
        F1, and for a number minus the mean squared error.
        """
        if self.target == "number":
            return -(outputs[:, 0].double() - truth).square().mean().item()
        if self.target == "single":
            # One more label, for those that are unknown.
            predicted = outputs.argmax(1).numpy()
            scores = label_scores(truth.numpy(), predicted, self.outputs + 1)
        else:
            flags = (outputs.sigmoid() >= THRESHOLD).numpy()
            scores = label_set_scores(truth.bool().numpy(), flags)
        if self.weights == "balanced":
            return scores["macro_f1"]
        return scores["accuracy" if self.target == "single" else "micro_f1"]


def _weights(target: Target, truth: Truth, labels: int) -> Tensor | None:
    """Return the balanced weights: of each label (k,), or of its presence and absence (2, k)."""
    if target == "number":
        return None
    if target == "single":
        counts = np.bincount(truth[truth < labels], minlength=labels)
        present = (counts > 0).sum()
        weights = np.where(counts, counts.sum() / (present * np.maximum(counts, 1)), 0.0)
    else:
        positive = truth[:, :labels].sum(0)
        sides = np.stack([positive, len(truth) - positive])
        weights = len(truth) / (2 * np.maximum(sides, 1))
    return torch.from_numpy(weights.astype(np.float32))
