"""Tag schemes: what follows what, and which one a file uses."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.tasks.tagging.spans import (
    ALPHABETS,
    OUTSIDE,
    SCHEMES,
    Scheme,
    Span,
    Tag,
    parse_tag,
    spans_of,
    write_spans,
)

SHOWN = 5
"""Invalid tags that a report shows."""


def may_follow(before: Tag | None, tag: Tag | None, scheme: Scheme) -> bool:
    """Return True if a tag may stand after another; None stands for the bounds of a sentence.

    Both tags must have a prefix of the scheme.
    """
    before, tag = before or OUTSIDE, tag or OUTSIDE
    is_same = before.label == tag.label
    touches = before.kind in "BI" and is_same
    match scheme:
        case "IO":
            return True
        case "IOB1":
            return tag.kind != "B" or touches
        case "IOB2":
            return tag.kind != "I" or touches
    return (
        touches
        if before.kind in "BI" and tag.kind in "IE"
        else before.kind not in "BI" and tag.kind not in "IE"
    )


class Transitions(NamedTuple):
    """What a scheme allows, for n tags.

    Attributes:
        start: (n,) bool, whether a sentence may begin with the tag.
        follows: (n, n) bool, whether the tag of the column may follow that of the row.
        end: (n,) bool, whether a sentence may end with the tag.
    """

    start: npt.NDArray[np.bool_]
    follows: npt.NDArray[np.bool_]
    end: npt.NDArray[np.bool_]


def transitions(tags: Sequence[str], scheme: Scheme) -> Transitions:
    """Return which of these tags may follow which.

    Raises:
        ValueError: a tag has a prefix that the scheme lacks.
    """
    parsed = [parse_tag(tag) for tag in tags]
    for name, tag in zip(tags, parsed, strict=True):
        if not _is_in(tag, scheme):
            raise ValueError(f"'{name}' is no tag of {scheme}; convert the tags first")
    return Transitions(
        np.array([may_follow(None, tag, scheme) for tag in parsed], bool),
        np.array([[may_follow(a, b, scheme) for b in parsed] for a in parsed], bool).reshape(
            len(parsed), len(parsed)
        ),
        np.array([may_follow(tag, None, scheme) for tag in parsed], bool),
    )


def tags_for(labels: Iterable[str], scheme: Scheme) -> tuple[str, ...]:
    """Return "O" and all tags of these labels, in the order of the labels, without repeats."""
    found = {"O": None}
    for label in dict.fromkeys(labels):
        # A span of three tokens, and one of one token that touches another, have all prefixes.
        spans = [Span(0, 3, label), Span(4, 5, label)]
        if scheme != "IO":
            spans.append(Span(5, 6, label))
        found |= dict.fromkeys(sorted(write_spans(spans, 7, scheme)))
    return tuple(found)


def _is_in(tag: Tag, scheme: Scheme) -> bool:
    return tag.prefix in ALPHABETS[scheme] if tag.prefix else scheme == "IO"


@dataclass(frozen=True)
class SchemeReport:
    """The tag scheme of a file, and the evidence for it.

    Attributes:
        scheme: the scheme; None if the tags are not those of spans, such as parts of speech.
        sentences: number of sentences.
        invalid: number of sentences with tags that the scheme does not allow.
        shown: a few of these tags with their places.
        violations: number of tags that each scheme does not allow.
        prefixes: number of tags by prefix; "" counts tags that have none.
        labels: number of spans by label, as `spans_of` reads them; with no scheme, tags by name.
    """

    scheme: Scheme | None
    sentences: int
    invalid: int
    shown: tuple[str, ...]
    violations: Mapping[Scheme, int]
    prefixes: Mapping[str, int]
    labels: Mapping[str, int]

    def describe(self) -> tuple[str, ...]:
        """Return lines for a user."""
        counts = ", ".join(f"{name or 'none'} {n:,}" for name, n in self.prefixes.items())
        if self.scheme is None:
            names = sorted(self.labels, key=lambda name: -self.labels[name])
            few = ", ".join([*(f"'{name}'" for name in names[:SHOWN]), "…"][: len(names)])
            line = (
                f"tag scheme: none; the {len(names):,} different tags ({few}) are not those of spans "
                f"(prefixes: {counts}), so that each token is scored by itself; for spans, check the "
                "column of the tags"
            )
            return line, *_other_forms(names)
        others = ", ".join(
            f"{scheme} {count:,}"
            for scheme, count in self.violations.items()
            if scheme != self.scheme
        )
        lines = [
            f"tag scheme: {self.scheme} (prefixes: {counts}; wrong tags in other schemes: {others})"
        ]
        if "" in self.prefixes and self.scheme == "IO":
            lines.append("the tags have no prefixes; a run of one tag is a span")
            lines += _other_forms(self.labels)
        if not self.labels:
            lines.append("no tag is part of a span")
        if self.invalid:
            wrong = self.violations[self.scheme]
            lines.append(
                f"tags that are not valid in {self.scheme}: {wrong:,}, in {self.invalid:,} of "
                f"{self.sentences:,} sentences; they are read as conlleval does: {'; '.join(self.shown)}"
            )
        return tuple(lines)


_OTHER_FORMS = (
    re.compile(r"(?P<prefix>[bieslumwBIESLUMW])[-_.:/](?P<label>.+)"),
    re.compile(r"(?P<label>.+)[-_.:/](?P<prefix>[BIESLUMW])"),
)


def _other_forms(names: Iterable[str]) -> list[str]:
    """Return a line if tags without a known prefix seem to be written in another form."""
    tags = [name for name in names if name.upper() != "O"]
    for form in _OTHER_FORMS:
        found = [form.fullmatch(tag) for tag in tags]
        if tags and all(found):
            first = found[0]
            assert first
            right = f"{first['prefix'].upper()}-{first['label']}"
            return [
                f"the tags look like those of spans in another form; write {right!r} for {tags[0]!r}, and "
                "'O' for tokens outside spans"
            ]
    return []


def detect_scheme(
    sentences: Sequence[Sequence[str]], places: Sequence[str] | None = None
) -> SchemeReport:
    """Return the scheme whose rules the tags break least, with the evidence.

    If several schemes fit, the spans are the same in each of them. If most tags have no prefix and
    none is "O", they follow no scheme.

    Args:
        sentences: the tags of each sentence.
        places: the place of each sentence, for messages; None numbers the sentences from 1.
    """
    prefixes: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for tags in sentences:
        names.update(tags)
    for name, count in names.items():
        prefixes[parse_tag(name).prefix] += count
    plain = prefixes[""]
    spelled = sum(prefixes.values()) - plain - prefixes["O"]
    is_plain = plain > spelled
    ordered = {letter: prefixes[letter] for letter in "BIMELSUWO" if prefixes[letter]}
    ordered |= {"": plain} if plain else {}
    steps = Counter(step for tags in sentences for step in _steps(tags))
    wrong_steps = {
        scheme: {step for step in steps if _is_wrong(*step, scheme)} for scheme in SCHEMES
    }
    violations = {
        scheme: sum(steps[step] for step in found) for scheme, found in wrong_steps.items()
    }
    if is_plain and not prefixes["O"]:
        return SchemeReport(None, len(sentences), 0, (), violations, ordered, names)
    # Of schemes that fit equally well, one that has all letters.
    lacking = {
        scheme: sum(n for letter, n in prefixes.items() if letter not in ALPHABETS[scheme])
        for scheme in SCHEMES
    }
    scheme = "IO" if is_plain else min(SCHEMES, key=lambda name: (violations[name], lacking[name]))
    invalid = 0
    shown: list[str] = []
    for number, tags in enumerate(sentences):
        wrong = [at for at, step in enumerate(_steps(tags)) if step in wrong_steps[scheme]]
        invalid += bool(wrong)
        if wrong and len(shown) < SHOWN:
            place = places[number] if places else f"sentence {number + 1}"
            at = wrong[0]
            before = f"after {tags[at - 1]}" if at else "at the start"
            what = f"{tags[at]} {before}" if at < len(tags) else f"{tags[-1]} at the end"
            shown.append(f"{place}, token {min(at, len(tags) - 1) + 1}: {what}")
    labels = Counter(span.label for tags in sentences for span in spans_of(tags))
    return SchemeReport(
        scheme, len(sentences), invalid, tuple(shown), violations, ordered, dict(labels)
    )


def _is_wrong(before: str | None, tag: str | None, scheme: Scheme) -> bool:
    """Return True if a scheme does not allow a tag after another; None is a bound of the sentence."""
    now = parse_tag(tag) if tag is not None else None
    if now and not _is_in(now, scheme):
        return True
    then = parse_tag(before) if before is not None else None
    # A prefix of another scheme must not count twice.
    return not may_follow(then if then and _is_in(then, scheme) else None, now, scheme)


def _steps(tags: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
    return pairwise((None, *tags, None))
