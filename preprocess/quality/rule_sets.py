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
from preprocess.text.quality.config import C4Config, RefinedWebLinesConfig
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
    _groups: "list[_Group] | None" = None

    def groups(self) -> "list[_Group]":
        """Return the layouts of the kept texts; they are made again only after a text has changed."""
        if self._groups is None:
            kept = [
                n for n, reason in enumerate(self.reasons) if not reason and self.texts[n].strip()
            ]
            found = layouts_of([self.texts[n] for n in kept])
            self._groups = [
                _Group(layout, [kept[n] for n in numbers], np.ones(len(numbers), bool))
                for numbers, layout in found
            ]
        return self._groups

    def drop(self, group: "_Group", rules: Iterable[tuple[str, Mask]]) -> None:
        """Drop the documents that a rule chooses; the first such rule is the reason."""
        for reason, chosen in rules:
            for number in np.flatnonzero(chosen & group.kept).tolist():
                self.reasons[group.numbers[number]] = reason
                group.kept[number] = False
        if 2 * np.count_nonzero(group.kept) < len(group.kept):
            self._groups = None  # Later rules need not look at dropped texts.

    def shorten(self, group: "_Group", removal: LineRemoval) -> None:
        """Remove lines from the documents that are still kept."""
        removed = removal.removed()
        for number, text in removal.shorter_texts().items():
            if group.kept[number]:
                self.replace(group.numbers[number], text, removed[number])

    def replace(self, number: int, text: str, removed: list[Removed]) -> None:
        """Replace a text by what remains of it."""
        self.texts[number] = text
        self.changed.add(number)
        self.removed.setdefault(number, []).extend(removed)
        self._groups = None


@dataclass
class _Group:
    """Texts with one layout: the numbers of the documents, and which are kept, shape (texts,)."""

    layout: Layout
    numbers: list[int]
    kept: Mask


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
        sets.append(partial(_drop, rules=partial(fineweb, config=config.fineweb)))
    return sets


def _drop(documents: Documents, rules: Callable[[Layout], Iterator[tuple[str, Mask]]]) -> None:
    for group in documents.groups():
        documents.drop(group, rules(group.layout))


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
