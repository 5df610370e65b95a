"""Charts as inline SVG, so that a page needs neither a library nor a network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Literal

Point = tuple[float, float]

MOST_POINTS = 500
"""Points a line is drawn with; of a longer one, means of equal stretches."""

LEAST, MOST = 1e-290, 1e290
"""Bounds of what is drawn; beyond them an axis cannot be computed."""

LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 30
"""Pixels around the plot, for the labels of its axes."""

FEWEST = 12
"""Columns there is room for at least, so that a single one is not a wall."""
LETTER = 7.5
"""Pixels a letter of a label takes."""


@dataclass(frozen=True)
class Series:
    """Points (x, y) in the order of x. ``style`` is a class of the page's style sheet."""

    name: str
    style: str
    points: Sequence[Point]
    kind: Literal["line", "faint", "dots"] = "line"


@dataclass(frozen=True)
class _Axis:
    """Values from ``low`` to ``high`` to pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        low, high, value = (
            (math.log(v) for v in (self.low, self.high, value))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, least: int) -> list[float]:
        """About ``least`` round values to twice that; of logarithms, 1, 2 and 5 times powers of 10."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 2, 5), (1,)):
                found = [m * 10.0**d for d in decades for m in digits]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) >= 3 and (len(found) <= 10 or digits == (1,)):
                    return found[:: math.ceil(len(found) / 10)]
        span = self.high - self.low
        unit = 10.0 ** math.floor(math.log10(span / least))
        step = max(unit * m for m in (1, 2, 5) if unit * m <= span / least)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def chart(label: str, series: Sequence[Series], width: int, height: int, log: bool = False) -> str:
    """An ``<svg>`` of ``series`` over one pair of axes, x from its least to its greatest value.

    Points with a y that is negative, not finite or (on a logarithmic axis) 0 are left out; with
    none left the plot is empty.

    Args:
        label: what the chart shows, for who cannot see it.
        series: drawn in their order, later ones above.
        width, height: pixels.
        log: whether y is logarithmic; else it begins at 0.
    """
    series = [Series(one.name, one.style, _drawable(one.points, log), one.kind) for one in series]
    xs = [x for one in series for x, _ in one.points] or [0.0]
    ys = [y for one in series for _, y in one.points] or [1.0]
    x = _Axis(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, LEFT, width - RIGHT)
    low, high = (min(ys) / 1.1, max(ys) * 1.1) if log else (0.0, max(ys) * 1.05)
    y = _Axis(low, high if high > low else low + 1, height - BOTTOM, TOP, log)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">',
        *_grid(y, width),
        *_marks(x, width, height),
        *(_draw(one, x, y) for one in series),
        "</svg>",
    ]
    return "".join(parts)


def columns(label: str, bars: Sequence[tuple[str, int]], width: int, height: int) -> str:
    """An ``<svg>`` of a histogram.

    Args:
        label: what the chart shows, for who cannot see it.
        bars: the lower bound of each bin, which is written below its left edge, and its count.
        width, height: pixels.
    """
    # A scale up to 4 has no fractions on it, and a count has none.
    most = max(4.0, *(1.05 * number for _, number in bars)) if bars else 4.0
    y = _Axis(0.0, most, height - BOTTOM, TOP)
    slot = (width - LEFT - RIGHT) / max(FEWEST, len(bars))
    every = math.ceil(LETTER * max((len(least) + 1 for least, _ in bars), default=1) / slot)
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">']
    parts += [*_grid(y, width), '<g class="columns">']
    for place, (least, number) in enumerate(bars):
        at, top = LEFT + place * slot, y.place(number)
        if number:
            # However small beside the others, it is there.
            top = min(top, y.start - 1)
            parts.append(
                f'<rect x="{at + 1:.1f}" y="{top:.1f}" width="{slot - 2:.1f}" '
                f'height="{y.start - top:.1f}"><title>from {escape(least)}: {number:,}</title></rect>'
            )
        if place % every == 0:
            parts.append(
                f'<text x="{at:.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">'
                f"{escape(least)}</text>"
            )
    return "".join([*parts, "</g></svg>"])


def smooth(points: Sequence[Point], share: float = 0.02) -> list[Point]:
    """The exponential moving average of y, unbiased at the start.

    ``share`` is the stretch that it remembers, of all points.
    """
    keep = 1 - 1 / max(1.0, share * len(points))
    mean = weight = 0.0
    smoothed = []
    for x, y in points:
        if math.isfinite(y):
            mean, weight = keep * mean + (1 - keep) * y, keep * weight + (1 - keep)
            smoothed.append((x, mean / weight))
    return smoothed


def short(number: float) -> str:
    """A number as an axis shows it: 4k, 250, 0.002."""
    for divisor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= divisor:
            return f"{number / divisor:.4g}{letter}"
    return f"{number:.4g}"


def _drawable(points: Sequence[Point], log: bool) -> list[Point]:
    kept = [(x, y) for x, y in points if LEAST <= y <= MOST or (y == 0 and not log)]
    if len(kept) <= MOST_POINTS:
        return kept
    stretches = groupby(enumerate(kept), lambda one: one[0] * MOST_POINTS // len(kept))
    means = []
    for _, stretch in stretches:
        some = [point for _, point in stretch]
        means.append((sum(p[0] for p in some) / len(some), sum(p[1] for p in some) / len(some)))
    return means


def _grid(y: _Axis, width: int) -> list[str]:
    parts = []
    for value in y.ticks(4):
        at = y.place(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
        parts.append(
            f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{short(value)}</text>'
        )
    return parts


def _marks(x: _Axis, width: int, height: int) -> list[str]:
    return [
        f'<text x="{x.place(value):.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">'
        f"{short(value)}</text>"
        for value in x.ticks(max(2, width // 240))
    ]


def _draw(series: Series, x: _Axis, y: _Axis) -> str:
    places = [(x.place(a), y.place(b)) for a, b in series.points]
    if series.kind == "dots":
        dots = (
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4">'
            f"<title>{escape(series.name)}, step {point[0]:,.0f}: {point[1]:,.4g}</title></circle>"
            for (a, b), point in zip(places, series.points, strict=True)
        )
        return f'<g class="{series.style} dots">{"".join(dots)}</g>'
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    return f'<polyline class="{series.style} {series.kind}" points="{path}"/>'
