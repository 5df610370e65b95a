"""Line charts: the geometry that ``templates/macros.html`` draws as HTML and SVG.

Positions are relative to the plot, so that a chart takes the width of its page while its text and
its lines keep their size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

Point = tuple[float, float]

MOST_POINTS = 500
"""Maximum number of points of a line; more points are averaged over equal stretches."""

LEAST, MOST = 1e-290, 1e290
"""Bounds of the values drawn; beyond them the axes would overflow."""

SIDE = 1000
"""Width and height of the plot in units of the SVG."""


@dataclass(frozen=True)
class Series:
    """Points (x, y) in the order of x.

    Attributes:
        name: name of the series, for the tooltips of dots.
        style: CSS class that gives the colour.
        points: the points.
        kind: "line"; "faint", a thin, pale line; or "dots".
    """

    name: str
    style: str
    points: Sequence[Point]
    kind: Literal["line", "faint", "dots"] = "line"


@dataclass(frozen=True)
class Mark:
    """A point with a tooltip; ``x`` and ``y`` as in `Chart.lines`."""

    style: str
    x: str
    y: str
    title: str


@dataclass(frozen=True)
class Chart:
    """A chart as the template draws it. Ticks are (percent from the left or the top, label)."""

    label: str
    x_ticks: Sequence[tuple[str, str]]
    y_ticks: Sequence[tuple[str, str]]
    lines: Sequence[tuple[str, str]]
    """(CSS classes, "x,y x,y ..."), from 0 to `SIDE`, y downwards."""
    dots: Sequence[Mark]
    marked: tuple[str, str] | None = None
    """(x as in `lines`, what happened there) of a vertical line."""


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Return the position of ``value``: 0 at ``low``, 1 at ``high``."""
        # Logarithms are subtracted, because a quotient of values may overflow.
        scale = math.log if self.log else float
        low = scale(self.low)
        return (scale(value) - low) / (scale(self.high) - low)

    def ticks(self, least: int) -> list[float]:
        """Return ``least`` to about twice as many round values; 1, 2, 5 x 10^n if logarithmic."""
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


def chart(
    label: str,
    series: Sequence[Series],
    log: bool = False,
    x_ticks: int = 4,
    x_name: str = "step",
    marked: tuple[float, str] | None = None,
) -> Chart:
    """Lay out ``series`` over common axes; x runs from its least to its greatest value.

    Points whose y is negative, not finite or (if logarithmic) 0 are left out.

    Args:
        label: what the chart shows, for readers who cannot see it.
        series: drawn in this order, later ones on top.
        log: whether y is logarithmic; otherwise it starts at 0.
        x_ticks: least number of labels on the x axis.
        x_name: what x counts, for the tooltips of dots.
        marked: x of a vertical line and what happened there; not drawn outside the series.
    """
    drawn = [(one, _drawable(one.points, log)) for one in series]
    xs = [x for _, points in drawn for x, _ in points] or [0.0]
    ys = [y for _, points in drawn for _, y in points] or [1.0]
    x = _Axis(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1)
    low, high = (min(ys) / 1.1, max(ys) * 1.1) if log else (0.0, max(ys) * 1.05)
    y = _Axis(low, high if high > low else low + 1, log)

    def place(point: Point) -> tuple[str, str]:
        return f"{SIDE * x.share(point[0]):.1f}", f"{SIDE * (1 - y.share(point[1])):.1f}"

    is_inside = marked is not None and x.low <= marked[0] <= x.high
    return Chart(
        label,
        [(f"{100 * x.share(value):.2f}", short(value)) for value in x.ticks(x_ticks)],
        [(f"{100 * (1 - y.share(value)):.2f}", short(value)) for value in y.ticks(4)],
        [
            (f"{one.style} {one.kind}", " ".join(",".join(place(point)) for point in points))
            for one, points in drawn
            if one.kind != "dots" and points
        ],
        [
            Mark(one.style, *place(point), f"{one.name}, {x_name} {point[0]:,.0f}: {point[1]:,.4g}")
            for one, points in drawn
            if one.kind == "dots"
            for point in points
        ],
        (f"{SIDE * x.share(marked[0]):.1f}", marked[1]) if marked and is_inside else None,
    )


def smooth(points: Sequence[Point], share: float = 0.02) -> list[Point]:
    """Return the exponential moving average of y, with bias correction as in Adam.

    Points whose y is not finite are left out. ``share`` is the length of the average's memory, as a
    share of the number of points.
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
    """Format a number for an axis: 4k, 250, 0.002."""
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
