"""What a user is told about a file that was read."""

from collections import Counter

from preprocess.errors import one_line
from preprocess.reading.labelled.counting import reasons
from preprocess.reading.labelled.examples import SHOWN, Reading, SpanAside, T


def describe(reading: Reading[T]) -> tuple[str, ...]:
    """Return lines that tell a user how a file was read, and what was dropped and why."""
    columns = ", ".join(f"{role}: {column}" for role, column in reading.columns.items())
    how = f"{reading.format}; {columns}" if columns else reading.format
    dropped = sum(reading.dropped.values())
    counts = f"{reading.read:,} read = {len(reading.examples):,} used + {dropped:,} dropped"
    if dropped:
        counts += f" ({reasons(dict(reading.dropped), dict(reading.shown))})"
    lines = [f"{one_line(reading.path)}: {how}", counts, *reading.notes]
    if reading.aside:
        lines.append(_aside(reading.aside))
    return tuple(lines)


def _aside(spans: tuple[SpanAside, ...]) -> str:
    counts = Counter(span.reason for span in spans)
    parts = []
    for reason, count in counts.most_common():
        some = [span for span in spans if span.reason == reason][:SHOWN]
        shown = ", ".join(
            f"{span.place} [{span.start}, {span.end}) {one_line(span.label)} {span.text[:30]!r}"
            for span in some
        )
        parts.append(f"{reason} {count:,}: {shown}" + (", …" if count > len(some) else ""))
    return f"{len(spans):,} spans are not in the tags of their sentences ({'; '.join(parts)})"
