"""The baseline of tagging: the most frequent tag of each word."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

OUTSIDE = "O"


@dataclass(frozen=True)
class MostFrequentTags:
    """The most frequent tag of each word of a training file.

    Attributes:
        tags: word -> tag.
        unseen: tag of other words.
    """

    tags: dict[str, str]
    unseen: str

    @classmethod
    def of(cls, sentences: Iterable[tuple[Sequence[str], Sequence[str]]], has_spans: bool) -> Self:
        """Count the tags of each word.

        Args:
            sentences: tokens and tags of each sentence.
            has_spans: whether the tags are of spans, so that an unseen word is in none. Otherwise it
                has the most frequent tag of the words that occur once, or of all words if there are
                none.
        """
        counts: dict[str, Counter[str]] = {}
        for tokens, tags in sentences:
            for token, tag in zip(tokens, tags, strict=True):
                counts.setdefault(token, Counter())[tag] += 1
        once = Counter[str]()
        for found in counts.values():
            if found.total() == 1:
                once.update(found)
        total = once or sum(counts.values(), Counter[str]())
        most = {token: _most(found) for token, found in counts.items()}
        return cls(most, OUTSIDE if has_spans else _most(total))

    def predict(self, tokens: Sequence[str]) -> tuple[str, ...]:
        """Return a tag for each token."""
        return tuple(self.tags.get(token, self.unseen) for token in tokens)


def _most(counts: Counter[str]) -> str:
    """Return the most frequent tag; of equally frequent ones the first in alphabetical order."""
    return min(counts, key=lambda tag: (-counts[tag], tag))
