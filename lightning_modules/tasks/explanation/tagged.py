"""Why a tagger gives words their tags: attributions of the words of the sentence."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_modules.tasks.explanation.explained import (
    Doubles,
    Explained,
    Row,
    check_label,
    shown_units,
)
from lightning_modules.tasks.explanation.inputs import TaskInputs
from lightning_modules.tasks.explanation.methods import Attribution, Method, attribute
from lightning_modules.tasks.features import Padded
from lightning_modules.tasks.tagging.data import PIECE
from lightning_modules.tasks.tagging.joining import joined_text
from lightning_modules.tasks.tagging.saved import TaskTagger
from lightning_modules.tasks.tagging.spans import parse_tag, spans_of
from lightning_modules.tasks.tagging.tagger import TagBatch
from lightning_modules.vectors.pretrained import BiLM
from preprocess.reading.labelled.examples import TaggedSentence

MOST_SPANS = 20
"""Spans of a sentence that are explained."""


class TaggerExplainer:
    """Explains the tags of a tagger: a span, or a word if the tags are no spans.

    The score is the sum over the words of the span of the log-odds of the predicted tag, in nats, from the
    network's outputs before the CRF combines them. The tagger's own features of words, which are no
    vectors of the language model, are held constant.

    Args:
        tagger: the tagger.
        model: its language model.
        method: as in `attribute`.
        label: explain the spans of this label only; None means all. Without spans, a tag.
        most_tokens: words of a sentence that are read; a longer one is cut, which its title says.

    Raises:
        ExplainError: the task has no such label.
    """

    def __init__(
        self, tagger: TaskTagger, model: BiLM, method: Method, label: str | None, most_tokens: int
    ) -> None:
        self._tagger, self._model, self._method, self._label = tagger, model, method, label
        self._most = min(most_tokens, PIECE)
        self._has_spans = tagger.tagger.parts.tags.file_scheme is not None
        if label is not None:
            tags = tagger.tagger.parts.tags.tags
            check_label(
                label,
                sorted({parse_tag(one).label for one in tags} - {""}) if self._has_spans else tags,
            )

    def explain(self, sentence: TaggedSentence) -> Explained:
        """Return the explanation of a sentence: a row of attributions for each span."""
        if sentence.problem or not sentence.tokens:
            return Explained(sentence.place, f"not explained: {sentence.problem or 'no tokens'}")
        note = ""
        if len(sentence.tokens) > self._most:
            note = f"; its first {self._most:,} of {len(sentence.tokens):,} words were read"
            cut, offsets = sentence.tokens[: self._most], sentence.offsets[: self._most]
            text = sentence.text if sentence.text is None else sentence.text[: offsets[-1][1]]
            sentence = TaggedSentence(cut, (), sentence.place, text, offsets)
        parts, network = self._tagger.tagger.parts, self._tagger.tagger.network
        batch = parts.data([sentence.tokens], None)[[0]].to(next(network.parameters()).device)
        inputs = TaskInputs(
            self._model,
            [joined_text(sentence, self._tagger.join)],
            "word",
            lambda texts: self._emissions(batch, texts[0]),
        )
        text, units = shown_units(inputs.texts, "word")
        assert len(units.spans) == len(sentence.tokens), "a word for each token"
        with torch.no_grad():
            emissions = inputs.outputs(inputs.vectors[None])
        outputs = network.crf.decode(emissions, batch.lengths)[0]
        rows: list[Row] = []
        facts: list[dict[str, Any]] = []
        left_out, incomplete = 0, 0
        groups = torch.from_numpy(units.groups).to(inputs.vectors.device)
        for first, end, label in self._spans(parts.tags.decode(outputs)):
            if len(rows) == MOST_SPANS:
                left_out += 1
                continue
            score = partial(_span_score, inputs.outputs, outputs, first, end)
            found = attribute(self._method, score, inputs.vectors, groups)
            incomplete += bool(found.unattributed)
            values: Doubles = np.zeros(len(units.spans))
            values[: len(found.values)] = found.values
            name = f"{label} ({' '.join(sentence.tokens[first:end])})"
            # Two spans of the same words and label are told apart by their place.
            if any(row.name == name for row in rows):
                name = f"{name} at word {first + 1}"
            rows.append(Row(name, values, True))
            facts.append(_fact(label, first, end, found))
        title = ", ".join(row.name for row in rows) or "no spans"
        title += f", {left_out:,} more" if left_out else ""
        if incomplete:
            note += (
                f"; the attributions of {incomplete} of {len(rows)} rows do not add up within 1 %"
            )
        known: dict[str, Any] = {"method": self._method, "explained": facts}
        return Explained(sentence.place, f"{title}{note}", text, units.spans, tuple(rows), known)

    def _emissions(self, batch: TagBatch, text: Padded) -> Tensor:
        rows = text.layers.shape[1]
        characters = batch.characters
        repeated = TagBatch(
            batch.lengths.expand(rows),
            batch.words.expand(rows, -1),
            None if characters is None else characters.expand(rows, -1, -1),
            text.layers,
            None,
            (0,) * rows,
        )
        # cuDNN has no gradient of a recurrent network in evaluation mode.
        with torch.backends.cudnn.flags(enabled=False):
            found: Tensor = self._tagger.tagger.network(repeated)
        return found

    def _spans(self, tags: tuple[str, ...]) -> list[tuple[int, int, str]]:
        """Return first word, end and label of the spans to explain; each word without spans."""
        found = [(n, n + 1, tag) for n, tag in enumerate(tags)]
        if self._has_spans:
            found = [(span[0], span[1], span[2]) for span in spans_of(tags)]
        return [span for span in found if self._label in (None, span[2])]


def _span_score(
    outputs: Callable[[Tensor], Tensor], tags: list[int], first: int, end: int, vectors: Tensor
) -> Tensor:
    """Return the sum of the log-odds of the predicted tags of some words, (batch,)."""
    emissions = outputs(vectors)[:, first:end]  # (batch, words, tags)
    chosen = torch.tensor(tags[first:end], device=emissions.device).expand(len(emissions), -1)
    at = chosen[..., None]
    others = emissions.scatter(2, at, float("-inf")).logsumexp(2)
    return (emissions.gather(2, at)[..., 0] - others).sum(1)


def _fact(label: str, first: int, end: int, found: Attribution) -> dict[str, Any]:
    return {
        "label": label,
        "first_token": first,
        "last_token": end - 1,
        "score": float(f"{found.score:.6g}"),
        "baseline": float(f"{found.baseline:.6g}"),
        "missing": float(f"{found.missing:.6g}") if found.points else None,
    }
