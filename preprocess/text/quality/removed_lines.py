"""Removal of lines from texts, and the record of what was removed."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from preprocess.text.quality.layout import Layout, Mask


class Removed(NamedTuple):
    """What one rule removed from one text.

    Attributes:
        reason: the rule's reason.
        lines: number of lines.
        characters: number of characters, without white space at the ends of lines.
        example: the first line or piece that was removed.
    """

    reason: str
    lines: int
    characters: int
    example: str


class LineRemoval:
    """The lines of a layout that rules remove; the first rule that chooses a line counts it.

    Args:
        layout: the texts.
        rules: reason, and which lines go, shape (lines,).

    Attributes:
        remain: which lines no rule chose, shape (lines,).
    """

    def __init__(self, layout: Layout, rules: Iterable[tuple[str, Mask]]) -> None:
        self._layout = layout
        self._chosen: list[tuple[str, Mask]] = []
        self.remain: Mask = np.ones(len(layout.lines), bool)
        for reason, chosen in rules:
            gone = chosen & self.remain
            if gone.any():
                self._chosen.append((reason, gone))
                self.remain = self.remain & ~gone

    def shorter_texts(self) -> dict[int, str]:
        """Return the remaining text of each text that loses a line, by its index."""
        lines = self._layout.lines
        texts = {}
        for text in np.unique(lines.texts[~self.remain]).tolist():
            begin, end = lines.bounds[text], lines.bounds[text + 1]
            kept = np.flatnonzero(self.remain[begin:end]) + begin
            texts[text] = "\n".join(self._layout.lines_of(text, kept))
        return texts

    def removed(self) -> dict[int, list[Removed]]:
        """Return what was removed from each text that loses a line, by its index."""
        lines = self._layout.lines
        found: dict[int, list[Removed]] = {}
        for reason, gone in self._chosen:
            places = np.flatnonzero(gone)
            texts, first, numbers = np.unique(
                lines.texts[places], return_index=True, return_counts=True
            )
            characters = np.add.reduceat(lines.lengths[places], first)
            for text, begin, number, size in zip(
                texts.tolist(), first.tolist(), numbers.tolist(), characters.tolist(), strict=True
            ):
                example = self._layout.line(int(places[begin]))
                found.setdefault(text, []).append(Removed(reason, number, size, example))
        return found
