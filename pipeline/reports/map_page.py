"""The page of `biloom map`: points in two dimensions, whose text is shown under the mouse."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.reports.html_page import render
from preprocess.vectors.word_sample import Snippet

COLOURS = 10
"""Number of groups with a colour of their own; the others share one."""

OTHERS = "others"
MARGIN = 2.0
"""Percent of the map that stays free at each edge."""


@dataclass(frozen=True)
class MapPoint:
    """A point of a map.

    Attributes:
        group: name of the group that gives its colour.
        snippet: the text that is shown.
    """

    group: str
    snippet: Snippet


def map_page(
    heading: str,
    about: str,
    facts: Sequence[tuple[str, str]],
    points: Sequence[MapPoint],
    places: npt.NDArray[np.float64],
    axes: Sequence[str],
) -> str:
    """Return the HTML of a map.

    Args:
        heading: heading of the page.
        about: a sentence below it.
        facts: (name, value) of what is known about the map.
        points: the points; the most frequent groups have colours of their own.
        places: place of each point, shape (points, 2).
        axes: labels of the horizontal and the vertical axis; empty if the axes mean nothing.
    """
    counts = Counter(point.group for point in points)
    coloured = [name for name, _ in counts.most_common(COLOURS)]
    styles = {name: f"g{number}" for number, name in enumerate(coloured)}
    keys = [(styles[name], name, counts[name]) for name in coloured]
    rest = len(points) - sum(number for _, _, number in keys)
    if rest:
        keys.append(("rest", f"{OTHERS} ({len(counts) - len(coloured):,} labels)", rest))
    return render(
        "map.html",
        heading=heading,
        about=about,
        facts=facts,
        keys=keys,
        axes=axes,
        points=[
            (styles.get(point.group, "rest"), *place, point.group, point.snippet)
            for point, place in zip(points, _percent(places), strict=True)
        ],
    )


def _percent(places: npt.NDArray[np.float64]) -> list[tuple[str, str]]:
    """Return the place of each point in percent from the left and the top, on equal scales."""
    middle = (places.max(0) + places.min(0)) / 2
    extent = float((places.max(0) - places.min(0)).max()) or 1.0
    scaled = 50 + (places - middle) / extent * (100 - 2 * MARGIN)
    return [(f"{x:.2f}", f"{100 - y:.2f}") for x, y in scaled.tolist()]
