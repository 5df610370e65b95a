"""Why a classifier gives a text its label: attributions of the text's words."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lightning_modules.tasks.classification.classifier import Classifier, PooledHead, Prediction
from lightning_modules.tasks.classification.examples import Problem
from lightning_modules.tasks.classification.network_head import NetworkHead
from lightning_modules.tasks.explanation.explained import (
    By,
    Explained,
    ExplainError,
    Row,
    check_label,
    shown_units,
)
from lightning_modules.tasks.explanation.inputs import Outputs, TaskInputs
from lightning_modules.tasks.explanation.methods import Method, attribute, delete
from lightning_modules.tasks.features import Padded
from lightning_modules.vectors.selection import Text
from preprocess.tokenizers.aligned_text import Tokenised


class ClassifierExplainer:
    """Explains the predictions of a classifier.

    The score is the log-odds of a label, log(p / (1 - p)), in nats; of a regression it is the number.

    Args:
        classifier: the classifier, with its language model.
        method: as in `attribute`.
        label: the label to explain; None means the predicted one.
        by: what gets an attribution.
        most_tokens: tokens of a text that are read; a longer one is cut, which its title says.

    Raises:
        ExplainError: the task has no such label.
    """

    def __init__(
        self, classifier: Classifier, method: Method, label: str | None, by: By, most_tokens: int
    ) -> None:
        self._classifier, self._method, self._by, self._most = classifier, method, by, most_tokens
        self._target = None if label is None else _index(classifier.problem, label)
        self._head = differentiable(classifier)
        model = classifier.source.model
        if isinstance(classifier.head, NetworkHead) and classifier.head.tuned is not None:
            model = classifier.head.tuned.model
            self._most = min(most_tokens, classifier.head.head.config.most_units)
        assert model is not None, "a stored classifier has a language model"
        self._model = model

    def explain(self, text: str, pair: str | None, place: str, problem: str = "") -> Explained:
        """Return the explanation of a text, or of a pair of texts.

        Args:
            text: the text.
            pair: the second text of a pair.
            place: where it is in its file.
            problem: why there is no text; empty if there is one.

        Raises:
            ExplainError: the task classifies pairs and this is none, or the other way round.
        """
        classifier = self._classifier
        if problem:
            return Explained(place, f"not explained: {problem}")
        if (pair is not None) != classifier.has_pairs:
            reads = "pairs of texts" if classifier.has_pairs else "single texts"
            raise ExplainError(f"{place}: this task classifies {reads}; name such a file")
        model, source = self._model, classifier.source
        texts: list[Text] = []
        notes = []
        for one in (text,) if pair is None else (text, pair):
            cut, note = self._cut(model.reader.read([one])[0], one)
            texts.append(cut)
            notes.append(note)
        note = next(filter(None, notes), "")
        pooling = source.text_pooling if source.unit == "sentence" else None
        inputs = TaskInputs(model, texts, source.unit, self._head, pooling)
        joined, units = shown_units(inputs.texts, self._by)
        if not inputs.texts[0].tokens:
            return Explained(place, "not explained: no tokens", joined)
        prediction = classifier.predict(*(str(one) for one in texts))
        target = self._chosen(prediction)
        score = partial(self._score, inputs, target)
        groups = torch.from_numpy(units.groups).to(inputs.vectors.device)
        found = attribute(self._method, score, inputs.vectors, groups)
        values = np.zeros(len(units.spans))
        values[: len(found.values)] = found.values
        left = delete(score, inputs.vectors, found.values, groups)
        title, named = self._title(prediction, target)
        facts = {
            **named,
            "method": self._method,
            "score": found.score,
            "baseline": found.baseline,
            "missing": found.missing if self._method == "integrated_gradients" else None,
            "deleted": left.count,
            "score_without_named": left.named,
            "score_without_random": left.random,
        }
        rounded = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in facts.items()}
        return Explained(
            place,
            f"{title}{note}{found.unattributed}",
            joined,
            units.spans,
            (Row("attribution", values, True),),
            rounded,
        )

    def _cut(self, read: Tokenised, text: str) -> tuple[str, str]:
        """Return a text of at most ``most_tokens`` tokens, and a note if it was cut."""
        if len(read.tokens) <= self._most:
            return text, ""
        end = read.tokens[self._most - 1].end
        return read.text[
            :end
        ], f"; its first {self._most:,} of {len(read.tokens):,} tokens were read"

    def _chosen(self, prediction: Prediction) -> int:
        if self._target is not None:
            return self._target
        return int(prediction.probabilities.argmax())

    def _score(self, inputs: TaskInputs, target: int, vectors: Tensor) -> Tensor:
        return log_odds(inputs.outputs(vectors), target, self._classifier.problem)

    def _title(self, prediction: Prediction, target: int) -> tuple[str, dict[str, object]]:
        found = float(prediction.probabilities[target])
        if self._classifier.problem.target == "number":
            return f"{found:.4g}", {"predicted": found}
        label = self._classifier.problem.labels[target]
        return f"{label} (p = {found:.3f})", {"label": label, "probability": found}


def log_odds(outputs: Tensor, target: int, problem: Problem) -> Tensor:
    """Return the log-odds of a label, (batch,), from outputs (batch, k); the output of a number."""
    chosen = outputs[:, target]
    if problem.target != "single" or outputs.shape[1] == 1:
        return chosen
    others = torch.cat([outputs[:, :target], outputs[:, target + 1 :]], 1)
    return chosen - others.logsumexp(1)


def differentiable(classifier: Classifier) -> Outputs:
    """Return the head of a classifier as a differentiable function."""
    head = classifier.head
    if isinstance(head, PooledHead):
        return pooled_outputs(head, classifier.source.pooling)
    assert isinstance(head, NetworkHead), "a stored classifier has one of two kinds of head"
    return network_outputs(head)


def network_outputs(head: NetworkHead) -> Outputs:
    """Return a network on the vectors of all units as a differentiable function."""
    most = head.head.config.most_units

    def outputs(texts: Sequence[Padded]) -> Tensor:
        read = [Padded(one.layers[:, :, :most], one.lengths.clamp(max=most)) for one in texts]
        # cuDNN has no gradient of a recurrent network in evaluation mode.
        with torch.backends.cudnn.flags(enabled=False):
            found: Tensor = head.head(read)
        return found

    return outputs


def pooled_outputs(head: PooledHead, pooling: str) -> Outputs:
    """Return a linear head on pooled vectors as a differentiable function, in float64."""
    weight, bias = torch.from_numpy(head.linear.weight), torch.from_numpy(head.linear.bias)

    def outputs(texts: Sequence[Padded]) -> Tensor:
        pooled = [_pool(one, pooling) for one in texts]  # (batch, depth, width)
        features = pooled[0]
        if len(pooled) == 2:
            one, other = pooled
            features = torch.cat([one, other, (one - other).abs(), one * other], -1)
        features = features.mean(1) if head.mean else features[:, [*head.layers]].flatten(1)
        return features.double() @ weight.to(features.device).T + bias.to(features.device)

    return outputs


def _pool(text: Padded, pooling: str) -> Tensor:
    """Return a vector for each layer, (batch, depth, width); all texts have the same number of units."""
    found = []
    if pooling in ("mean", "mean_max"):
        found.append(text.layers.mean(2))
    if pooling in ("max", "mean_max"):
        found.append(text.layers.amax(2))
    return torch.cat(found, -1).transpose(0, 1)


def _index(problem: Problem, label: str) -> int:
    if problem.target == "number":
        raise ExplainError("for_label: the task predicts a number and has no labels; leave it out")
    check_label(label, problem.labels)
    return problem.labels.index(label)
