"""Screening: from raw texts to cleaned texts without unwanted documents, lines and personal data.

The steps, in this order, each on the documents that the former ones kept:

1. lists of URLs (`preprocess.quality.url_lists`), before cleaning;
2. cleaning; what is empty then is dropped, if `PrepareConfig.drop_empty` is set;
3. length, repeated lines, symbols, script, language (`preprocess.text.filters`);
4. the sets of rules in the order of `rule_sets`; RefinedWeb's and C4's remove lines, and later rules see
   the shorter text. Gopher's rules come first and FineWeb's last, as for FineWeb;
5. the length again, for texts that became shorter;
6. decontamination (`preprocess.quality.benchmarks`);
7. masks of personal data (`preprocess.text.quality.masking`).
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from preprocess.config import PrepareConfig, Source
from preprocess.quality.benchmarks import Benchmarks, Match, cached_benchmarks
from preprocess.quality.report import EXAMPLE_CHARACTERS, Report
from preprocess.quality.rule_sets import Documents, rule_sets
from preprocess.quality.url_lists import cached_url_lists
from preprocess.reading.block import EXCERPT_CHARACTERS
from preprocess.text.cleaning import Cleaner
from preprocess.text.filters import Filters
from preprocess.text.quality.masking import Masker
from preprocess.text.quality.removed_lines import Removed

EMPTY = "empty"
"""Reason of documents without text."""
CUT_MARGIN = 1000
"""Characters behind a cut in which personal data are searched that begin before it."""
_ESCAPE = re.compile(r"(\\(?:[nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}))")
_CUT = re.compile(r"(?:[\w.%+'@-]+|\+?[\d(). /-]+)$")
_MOST_CUT = 100
"""The end of a cut excerpt that may be a part of personal data, and the most characters that it has."""


@dataclass
class Screened:
    """A batch after screening.

    Attributes:
        originals: the texts as they were read; where lines were removed or personal data masked, the
            text in `texts`.
        texts: the cleaned texts. Of a dropped document, the text before its personal data are masked.
        reasons: why each document is dropped, or None.
        matches: the match of each contaminated document, by index.
    """

    originals: list[str]
    texts: list[str]
    reasons: list[str | None]
    matches: dict[int, Match] = field(default_factory=dict)


class Screener:
    """Screens the documents of a source.

    Args:
        config: settings of prepare.
        source: the source.

    Attributes:
        report: counts and examples so far.

    Raises:
        UserError: a list or a benchmark cannot be used; a language is unknown.
    """

    def __init__(self, config: PrepareConfig, source: Source) -> None:
        filters, cleaning = config.filters_of(source), config.cleaning_of(source)
        self._filters = Filters(filters)
        self._rules = rule_sets(filters)
        # Rules need line feeds, which cleaning may remove. So white space is cleaned apart.
        self._line_cleaner = Cleaner(cleaning.model_copy(update={"whitespace": "keep"}))
        rest = {"unicode": "none"} if self._rules else {}
        self._cleaner, self._again = (Cleaner(cleaning.model_copy(update=rest)) for _ in range(2))
        self._urls = cached_url_lists(filters.urls) if filters.urls else None
        self._masker = Masker(config.mask)
        self._drop_empty = config.drop_empty
        named = config.decontamination.benchmarks
        self._benchmarks = cached_benchmarks(config.decontamination) if named else None
        self.report = Report()
        if self._benchmarks:
            self.report.benchmarks = {
                name: [read.items, read.without_text, read.short]
                for name, read in self._benchmarks.items.items()
            }

    @property
    def changed(self) -> Counter[str]:
        """Texts that each step of cleaning has changed so far, as in `Cleaner.counts`."""
        return self._cleaner.counts + self._line_cleaner.counts

    def resume(self, changed: Mapping[str, int], report: Mapping[str, Any]) -> None:
        """Continue with the counts of a killed run: `changed` and `Report.saved`."""
        self._cleaner.counts.update(changed)
        self.report.add(report)

    def screen(self, originals: list[str], ids: Callable[[], Sequence[str]]) -> Screened:
        """Clean a batch of texts, and decide which documents are dropped.

        Args:
            originals: the texts as they were read.
            ids: returns the id of each document, empty if it has none; called if lists of URLs are set.
        """
        reasons: list[str | None] = [None] * len(originals)
        if self._urls:
            reasons, without = self._urls.reasons(ids())
            self.report.without_url += without
        lined = self._line_cleaner.clean_batch(originals) if self._rules else originals
        screened = Screened(originals.copy(), self._cleaner.clean_batch(lined), reasons)
        if self._drop_empty and not all(screened.texts):
            for number, text in enumerate(screened.texts):
                reasons[number] = reasons[number] or (None if text else EMPTY)
        self._filter(screened, originals)
        removed = self._apply_rules(screened, lined)
        if self._benchmarks:
            self._find_benchmarks(self._benchmarks, screened)
        for number, found in removed.items():
            if not reasons[number]:
                for one in found:
                    example = self.hidden(one.example, EXAMPLE_CHARACTERS)
                    self.report.add_removed(one._replace(example=example))
        self._show_dropped(screened)
        if self._masker.active:
            self._mask(screened)
        return screened

    def _filter(self, screened: Screened, originals: list[str]) -> None:
        if not self._filters.active:
            return
        reasons = screened.reasons
        kept = [number for number, reason in enumerate(reasons) if not reason]
        found = self._filters.reasons(
            [originals[n] for n in kept], [screened.texts[n] for n in kept]
        )
        for number, reason in zip(kept, found, strict=True):
            reasons[number] = reason

    def _apply_rules(self, screened: Screened, lined: list[str]) -> dict[int, list[Removed]]:
        """Apply the sets of rules, and return what was removed from each text, by index."""
        if not self._rules:
            return {}
        documents = Documents(lined.copy(), screened.reasons)
        for apply in self._rules:
            apply(documents)
        changed = sorted(documents.changed)
        texts = self._again.clean_batch([documents.texts[number] for number in changed])
        for number, text in zip(changed, texts, strict=True):
            screened.texts[number] = screened.originals[number] = text
            screened.reasons[number] = screened.reasons[number] or self._filters.length_reason(text)
        return documents.removed

    def _find_benchmarks(self, benchmarks: Benchmarks, screened: Screened) -> None:
        kept = [number for number, reason in enumerate(screened.reasons) if not reason]
        for index, match in benchmarks.matches([screened.texts[n] for n in kept]).items():
            screened.reasons[kept[index]] = f"contaminated_{match.benchmark}"
            screened.matches[kept[index]] = match
            self.report.add_matched(match.items)

    def _show_dropped(self, screened: Screened) -> None:
        if not any(screened.reasons):
            return
        for number, reason in enumerate(screened.reasons):
            if reason and reason != EMPTY:
                match = screened.matches.get(number)
                text = (
                    match.ngram
                    if match
                    else self.hidden(screened.texts[number], EXAMPLE_CHARACTERS)
                )
                self.report.add_example(reason, text)

    def _mask(self, screened: Screened) -> None:
        examples: list[tuple[str, str]] = []
        for number, reason in enumerate(screened.reasons):
            if not reason:
                before = screened.texts[number]
                text = self._masker.mask(before, self.report.masked, examples)
                if text is not before:
                    screened.texts[number] = screened.originals[number] = text
        for kind, example in examples:
            self.report.add_example(kind, example)

    def hidden(self, text: str, most: int | None = None) -> str:
        """Return a text that is shown or saved for inspection, with its personal data replaced.

        Args:
            text: the text.
            most: largest number of its characters; None for all.
        """
        if not self._masker.active:
            return text[:most]
        # Masked before it is cut, because a part of an address has another form.
        end = None if most is None else most + CUT_MARGIN
        return self._masker.mask(text[:end], Counter(), [])[:most]

    def hidden_excerpt(self, excerpt: str) -> str:
        """Return the excerpt of a rejected record with its personal data replaced.

        It may be cut, and its unprintable characters are escaped, so that its whole text is not known.
        """
        if not self._masker.active:
            return excerpt
        if len(excerpt) >= EXCERPT_CHARACTERS:
            cut = _CUT.search(excerpt, len(excerpt) - _MOST_CUT)
            excerpt = excerpt[: cut.start()] if cut else excerpt
        # An escaped line feed is no letter "n" before a number.
        parts = _ESCAPE.split(excerpt)
        parts[::2] = map(self.hidden, parts[::2])
        return "".join(parts)
