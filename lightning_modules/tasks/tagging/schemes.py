"""Tag schemes: detecting, checking and converting them.

To be written against:

- ``detect_scheme(sentences: Iterable[Sequence[str]]) -> SchemeReport`` with ``scheme: Scheme | None``,
  ``invalid: int``, ``sentences: int``, ``describe() -> tuple[str, ...]``
- ``convert(tags, source, target) -> tuple[str, ...]``
- ``allowed(tags: Sequence[str], scheme) -> Transitions(start (n,) bool, follows (n, n) bool [from, to], end (n,) bool)``
- in spans.py ``spans_of(tags) -> tuple[Span, ...]`` (conlleval) and ``strict_spans_of(tags, scheme)``
- in span_scores.py ``score_spans(gold, predicted, strict: Scheme | None = None) -> SpanScores`` with ``micro``,
  ``by_label`` (each a ``Score`` with correct, predicted, gold, precision, recall, f1), ``accuracy``
"""
