"""Figures of held-out text: perplexities, bits per byte, frequency bands. Imports no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from preprocess.shards.format import Shard

WAYS = ("forward", "backward", "average")
"""Names of the perplexities: of each direction, and of both together."""

CARRIED, TEXT_BY_TEXT = "carried", "text_by_text"
"""States in which held-out text is read: one that is carried from document to document, or the zero
state at the start of each document, as texts are scored and their vectors are made."""

LONG_WORD = 12.0
"""A source with more characters per word on average is treated as text without spaces between words.

Measured: 3.7 to 6.1 in ten languages with spaces (8 in Finnish and Turkish), 14 in Thai messages, 36 to
97 in Chinese and Japanese."""


def perplexity(nats: float) -> float:
    """Return exp of a mean loss in nats, at most e^700 because larger values overflow a float."""
    return math.exp(min(nats, 700.0))


@dataclass(frozen=True)
class HeldOut:
    """Sizes of a split.

    The end of a document counts as one token, word, character and byte (its newline), because the
    model predicts it. With this rule the validation set of the Penn Treebank has its usual 73,760
    words.

    Attributes:
        tokens: number of tokens.
        words: number of words separated by whitespace.
        characters: number of characters.
        text_bytes: size in UTF-8.
        unspaced: characters per word of each source without spaces between words, see `LONG_WORD`.
    """

    tokens: int
    words: int
    characters: int
    text_bytes: int
    unspaced: Mapping[str, float]

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> "HeldOut":
        """Return the sizes of a split from its shards."""
        unspaced = {}
        for source in dict.fromkeys(shard.source for shard in shards):
            of_source = [shard for shard in shards if shard.source == source]
            words = sum(shard.words for shard in of_source)
            length = sum(shard.characters for shard in of_source) / max(words, 1)
            if length > LONG_WORD:
                unspaced[source] = length
        ends = sum(shard.documents for shard in shards)
        return cls(
            tokens=sum(shard.tokens for shard in shards) + ends,
            words=sum(shard.words for shard in shards) + ends,
            characters=sum(shard.characters for shard in shards) + ends,
            text_bytes=sum(shard.text_bytes for shard in shards) + ends,
            unspaced=unspaced,
        )


@dataclass(frozen=True)
class LossSums:
    """Total loss over a set of targets.

    Attributes:
        tokens: number of targets of each direction.
        nats: their total -log p of each direction, in nats.
    """

    tokens: tuple[int, ...]
    nats: tuple[float, ...]

    def perplexities(self, units: int | None = None) -> dict[str, float | None]:
        """Return the "forward", "backward" and "average" perplexity.

        The average is exp of the mean of both directions' mean losses. A value is None if it is not
        defined: backward and average of a forward language model, and all three without targets.

        Args:
            units: number of units, such as words, to divide the loss by. None means the number of
                targets.
        """
        perplexities: dict[str, float | None] = dict.fromkeys(WAYS)
        if all(self.tokens):
            means = [n / (units or size) for n, size in zip(self.nats, self.tokens, strict=True)]
            perplexities |= zip(WAYS, map(perplexity, means), strict=False)
            if len(means) == 2:
                perplexities["average"] = perplexity(sum(means) / 2)
        return perplexities


@dataclass(frozen=True)
class Evaluation:
    """The loss of a model on a split, or on a part of it.

    Attributes:
        text: sizes of the split.
        total: loss over all targets.
        unknown: number of targets of the forward direction that are the unknown token.
        bands: loss over the targets of each frequency band. A band (first, last) holds the tokens
            whose rank by count in the training split, counted from 1, is in this range. Empty if
            the ranks are not known.
    """

    text: HeldOut
    total: LossSums
    unknown: int
    bands: Mapping[tuple[int, int], LossSums]

    @property
    def is_complete(self) -> bool:
        """Whether the loss is that of each token of the split in each direction."""
        return set(self.total.tokens) == {self.text.tokens}

    @property
    def loss(self) -> float:
        """Mean -log p per token in nats, over all directions; NaN without tokens."""
        tokens = sum(self.total.tokens)
        return sum(self.total.nats) / tokens if tokens else math.nan

    def losses(self) -> dict[str, Any]:
        """Return the entries of `figures` that depend on the state in which the text is read."""
        figures = self.figures()
        units = ("", "word_", "character_")
        keys = [f"{way}_{unit}perplexity" for unit in units for way in WAYS]
        return {key: figures[key] for key in (*keys, "bits_per_byte", *WAYS[:2])}

    def figures(self) -> dict[str, Any]:
        """Return all figures as JSON values.

        A figure that is not defined is None, and "not_defined" has the reason. "forward" and
        "backward" are total losses in nats. Bits per byte are the mean of both directions' total
        losses in bits, divided by the size in UTF-8. They count only one segmentation of the text
        into tokens, so they are an upper bound. Of a part of a split, they are an estimate from the
        whole split's tokens per byte, and perplexities per word and per character are not defined.
        """
        text, reasons = self.text, self._reasons()
        figures: dict[str, Any] = {}
        for unit, size in (("", None), ("word_", text.words), ("character_", text.characters)):
            perplexities = self.total.perplexities(size)
            if unit.rstrip("_") in reasons:
                perplexities = dict.fromkeys(WAYS)
            figures |= {f"{way}_{unit}perplexity": value for way, value in perplexities.items()}
        bits = None
        if "bits_per_byte" not in reasons and text.text_bytes:
            bits = self.loss * text.tokens / math.log(2) / text.text_bytes
        sizes = asdict(text)
        del sizes["unspaced"]
        return {
            **figures,
            "bits_per_byte": bits,
            **_by_direction("", self.total.nats),
            **sizes,
            "unknown_tokens": self.unknown,
            "bands": [
                {
                    "first_rank": first,
                    "last_rank": last,
                    **_by_direction("_tokens", sums.tokens),
                    **_by_direction("", sums.nats),
                    **{f"{way}_perplexity": value for way, value in sums.perplexities().items()},
                }
                for (first, last), sums in self.bands.items()
            ],
            "not_defined": reasons,
        }

    def _reasons(self) -> dict[str, str]:
        reasons = {}
        if len(self.total.nats) == 1:
            reasons["backward"] = "the model reads forward only"
        if self.text.unspaced:
            lengths = ", ".join(f"{name} {n:,.0f}" for name, n in self.text.unspaced.items())
            reasons["word"] = (
                f"text without spaces between words; characters from space to space: {lengths}"
            )
        if self.unknown:
            reasons["bits_per_byte"] = (
                f"{self.unknown:,} tokens are unknown words, whose spelling has no probability"
            )
        if not self.is_complete:
            part = f"{self.total.tokens[0]:,} of {self.text.tokens:,} tokens were evaluated"
            keys = ("word", "character", *([] if any(self.total.tokens) else ["bits_per_byte"]))
            reasons |= dict.fromkeys(keys, part)
        if not self.bands:
            reasons["bands"] = "the training corpus is not available; name it in train.corpus"
        return reasons


def _by_direction(ending: str, values: Sequence[float]) -> dict[str, float | None]:
    return {f"{way}{ending}": value for way, value in zip(WAYS[:2], (*values, None), strict=False)}
