"""The tags that a tagger predicts, and the tags of the file that it was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from lightning_modules.tasks.tagging.config import InnerScheme
from lightning_modules.tasks.tagging.schemes import SchemeReport, tags_for, transitions
from lightning_modules.tasks.tagging.spans import Scheme, convert, parse_tag

INSIDE: Scheme = "IOBES"
"""The scheme of the CRF's tags if the settings name none."""
_SPELLED = {"I": "M", "S": "W"}
"""Other letters for the prefixes of IOBES."""


@dataclass(frozen=True)
class TagSet:
    """The outputs of a tagger.

    Attributes:
        tags: the tags that the CRF knows, in the order of its outputs.
        scheme: the scheme of ``tags``; None for tags that are no spans, such as parts of speech.
        file_scheme: the scheme of the training file, in which predictions are given; None as above.
        spelling: prefix of ``file_scheme`` -> prefix that the training file writes instead; an empty
            one is written without a hyphen.
    """

    tags: tuple[str, ...]
    scheme: Scheme | None = None
    file_scheme: Scheme | None = None
    spelling: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, report: SchemeReport, inner: InnerScheme) -> "TagSet":
        """Return the tag set of a training file.

        With a scheme, it has all tags that the scheme has for the labels of the spans, so that every
        span can be predicted, also one whose length does not occur in training.

        Args:
            report: what the tags of the file are.
            inner: the scheme of the CRF's tags. A file of IO tags is trained in IO, because these
                cannot tell two spans that touch from one.
        """
        if report.scheme is None:
            return cls(tuple(sorted(report.labels)))
        chosen = {"auto": INSIDE, "file": report.scheme}.get(inner, inner)
        scheme: Scheme = "IO" if report.scheme == "IO" else chosen  # type: ignore[assignment]
        has = report.prefixes
        spelling = {a: b for a, b in _SPELLED.items() if b in has and a not in has}
        if report.scheme == "IO" and "" in has:
            spelling = {"I": ""}
        return cls(tags_for(sorted(report.labels), scheme), scheme, report.scheme, spelling)

    @cached_property
    def _outputs(self) -> dict[str, int]:
        return {tag: number for number, tag in enumerate(self.tags)}

    def encode(self, tags: Sequence[str]) -> list[int]:
        """Return the outputs for the tags of a training sentence, which are those of the file."""
        found = convert(tags, self.scheme) if self.scheme else tags
        return [self._outputs[tag] for tag in found]

    def decode(self, outputs: Sequence[int]) -> tuple[str, ...]:
        """Return the tags of a sentence as the file writes them."""
        tags = tuple(self.tags[output] for output in outputs)
        return self.as_in_file(tags)

    def as_in_file(self, tags: Sequence[str]) -> tuple[str, ...]:
        """Return the tags of a sentence in any scheme as the training file writes them."""
        if self.file_scheme is None:
            return tuple(tags)
        return tuple(map(self._written, convert(tags, self.file_scheme)))

    def _written(self, tag: str) -> str:
        prefix = parse_tag(tag).prefix
        if prefix not in self.spelling:
            return tag
        written = self.spelling[prefix] + tag[len(prefix) :]
        return written if self.spelling[prefix] else written.removeprefix("-")

    def constraints(self) -> tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]:
        """Return what the scheme allows: transitions (tags, tags), start (tags,), end (tags,), bool."""
        if self.scheme is None:
            return None, None, None
        rules = transitions(self.tags, self.scheme)
        return (
            torch.from_numpy(rules.follows),
            torch.from_numpy(rules.start),
            torch.from_numpy(rules.end),
        )
