"""The published sets of rules, applied to the documents of a batch that are still kept."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np

from preprocess.errors import UserError, one_line
from preprocess.quality.list_files import list_entries, versions_of
from preprocess.text.config import FilterConfig
from preprocess.text.quality.c4 import (
    bad_words_pattern,
    c4_documents,
    c4_lines,
    without_citations,
)
from preprocess.text.quality.config import C4Config, FineWebConfig, RefinedWebLinesConfig
from preprocess.text.quality.fineweb import fineweb
from preprocess.text.quality.gopher_quality import gopher_quality
from preprocess.text.quality.gopher_repetition import gopher_repetition
from preprocess.text.quality.layout import Layout, Mask, layouts_of
from preprocess.text.quality.refinedweb import lost_words, refinedweb_lines
from preprocess.text.quality.removed_lines import LineRemoval, Removed

BAD_WORDS = "filters.c4.bad_words"
"""The setting that names a list of words."""


@dataclass
class Documents:
    """The documents of a batch while rules are applied.

    Attributes:
        texts: the texts with their line feeds; rules replace those from which they remove lines.
        reasons: why each document is dropped, or None.
        changed: indexes of the texts that a rule has replaced.
        removed: what was removed from each text, by index.
    """

    texts: list[str]
    reasons: list[str | None]
    changed: set[int] = field(default_factory=set)
    removed: dict[int, list[Removed]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._groups: list[_Group] = []
        self._replaced = set(range(len(self.texts)))
        self._shortened: set[int] = set()

    def groups(self) -> "list[_Group]":
        """Return the layouts of the kept texts. Only texts that have changed are laid out again."""
        self._replaced |= self._shortened
        self._shortened = set()
        return self.line_groups()

    def line_groups(self) -> "list[_Group]":
        """Return the layouts of the kept texts as `groups`, with removed lines, for rules for lines.

        `_Group.remain` tells which lines the texts still have.
        """
        groups = []
        for group in self._groups:
            kept = [n for n, keep in zip(group.numbers, group.kept.tolist(), strict=True) if keep]
            if 2 * len(kept) < len(group.numbers):
                self._replaced.update(kept)  # Rules need not look at many dropped texts.
            else:
                group.kept &= [number not in self._replaced for number in group.numbers]
                groups.append(group)
        new = [n for n in sorted(self._replaced) if not self.reasons[n] and self.texts[n].strip()]
        for indexes, layout in layouts_of([self.texts[number] for number in new]):
            groups.append(_Group(layout, [new[index] for index in indexes]))
        self._groups, self._replaced = groups, set()
        return groups

    def drop(self, group: "_Group", rules: Iterable[tuple[str, Mask]]) -> None:
        """Drop the documents that a rule chooses; the first such rule is the reason."""
        for reason, chosen in rules:
            for number in np.flatnonzero(chosen & group.kept).tolist():
                self.reasons[group.numbers[number]] = reason
                group.kept[number] = False

    def shorten(self, group: "_Group", removal: LineRemoval) -> None:
        """Remove lines from the documents that are still kept."""
        group.remain = removal.remain
        removed = removal.removed()
        for index, text in removal.shorter_texts().items():
            if group.kept[index]:
                number = group.numbers[index]
                self._change(number, text, removed[index])
                self._shortened.add(number)

    def replace(self, number: int, text: str, removed: list[Removed]) -> None:
        """Replace a text by what remains of it."""
        self._change(number, text, removed)
        self._replaced.add(number)

    def _change(self, number: int, text: str, removed: list[Removed]) -> None:
        self.texts[number] = text
        self.changed.add(number)
        self.removed.setdefault(number, []).extend(removed)


class _Group:
    """Texts with one layout.

    Args:
        layout: the texts as they were laid out.
        numbers: the numbers of the documents.

    Attributes:
        kept: which of the texts are kept, shape (texts,).
        remain: which lines of the kept texts were not removed, shape (lines,).
    """

    def __init__(self, layout: Layout, numbers: list[int]) -> None:
        self.layout, self.numbers = layout, numbers
        self.kept: Mask = np.ones(len(numbers), bool)
        self.remain: Mask = np.ones(len(layout.lines), bool)


RuleSet = Callable[[Documents], None]


def rule_sets(config: FilterConfig) -> list[RuleSet]:
    """Return the sets of rules that a config turns on, in the order in which they are applied.

    Raises:
        UserError: the list of bad words cannot be used.
    """
    sets: list[RuleSet] = []
    if config.gopher_quality:
        sets.append(partial(_drop, rules=partial(gopher_quality, config=config.gopher_quality)))
    if config.gopher_repetition:
        rules = partial(gopher_repetition, config=config.gopher_repetition)
        sets.append(partial(_drop, rules=rules))
    if config.refinedweb_lines:
        sets.append(partial(_refinedweb, config=config.refinedweb_lines))
    if config.c4:
        words = config.c4.bad_words
        pattern = _bad_words(words, versions_of([words])) if words else None
        sets.append(partial(_c4, config=config.c4, bad_words=pattern))
    if config.fineweb:
        sets.append(partial(_fineweb, config=config.fineweb))
    return sets


def _drop(documents: Documents, rules: Callable[[Layout], Iterator[tuple[str, Mask]]]) -> None:
    for group in documents.groups():
        documents.drop(group, rules(group.layout))


def _fineweb(documents: Documents, config: FineWebConfig) -> None:
    for group in documents.line_groups():
        documents.drop(group, fineweb(group.layout, group.remain, config))


def _refinedweb(documents: Documents, config: RefinedWebLinesConfig) -> None:
    for group in documents.groups():
        removal = LineRemoval(group.layout, refinedweb_lines(group.layout, config))
        if config.max_removed_words is not None:
            above = lost_words(group.layout, removal.remain) > config.max_removed_words
            documents.drop(group, [("refinedweb_removed_words", above)])
        documents.shorten(group, removal)


def _c4(documents: Documents, config: C4Config, bad_words: re.Pattern[str] | None) -> None:
    if config.citations:
        for number, text in enumerate(documents.texts):
            if not documents.reasons[number]:
                shorter, removed = without_citations(text)
                if removed:
                    documents.replace(number, shorter, [removed])
                    if config.min_sentences and not shorter.strip():
                        documents.reasons[number] = "c4_too_few_sentences"
    for group in documents.groups():
        removal = LineRemoval(group.layout, c4_lines(group.layout, config))
        documents.drop(group, c4_documents(group.layout, removal.remain, config, bad_words))
        documents.shorten(group, removal)


@lru_cache(4)
def _bad_words(path: str, versions: tuple[float | None, ...]) -> re.Pattern[str]:
    """Return the pattern of a list of words, which is read once a process, unless the file changes.

    Raises:
        UserError: the file cannot be used, or is not in UTF-8.
    """
    try:
        words = [entry.decode() for entry in list_entries(path, BAD_WORDS)]
    except UnicodeDecodeError as error:
        raise UserError(f"{BAD_WORDS}: {one_line(path)}: this file is not in UTF-8") from error
    return bad_words_pattern([word.lower() for word in words])
