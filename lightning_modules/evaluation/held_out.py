"""What held-out text cost, as figures: perplexities, bits a byte, frequency bands. Imports no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from preprocess.shards.format import Shard

WAYS = ("forward", "backward", "average")

LONG_WORD = 12.0
"""Characters a word, on average over a source, above which it is taken to be written without spaces
between words. Measured: 3.7 to 6.1 in ten spaced languages (Finnish and Turkish have 8), 14 in Thai
messages, 36 to 97 in Chinese and Japanese."""


def perplexity(nats: float) -> float:
    """exp of a mean loss in nats; beyond e^700, where floats end, that."""
    return math.exp(min(nats, 700.0))


@dataclass(frozen=True)
class HeldOut:
    """How much text a split holds.

    A document's end counts as a token, a word, a character and a byte (the newline it stands for),
    since the model predicts it; so Penn Treebank has its customary 73,760 words.

    unspaced: characters a word of each source that has no spaces between words, see `LONG_WORD`.
    """

    tokens: int
    words: int
    characters: int
    text_bytes: int
    unspaced: Mapping[str, float]

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> "HeldOut":
        """That of a split's shards."""
        unspaced = {}
        for source in dict.fromkeys(shard.source for shard in shards):
            own = [shard for shard in shards if shard.source == source]
            words = sum(shard.words for shard in own)
            length = sum(shard.characters for shard in own) / max(words, 1)
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
class Sums:
    """Of each direction: how many targets, and their total -log p in nats."""

    tokens: tuple[int, ...]
    nats: tuple[float, ...]

    def perplexities(self, units: int | None = None) -> dict[str, float | None]:
        """Forward, backward and average a token, or for each of ``units``; none: not defined.

        The average is exp of the mean of both losses. A forward model alone has neither that nor a
        backward one; where there is no target, there is none at all.
        """
        found: dict[str, float | None] = dict.fromkeys(WAYS)
        if all(self.tokens):
            means = [n / (units or size) for n, size in zip(self.nats, self.tokens, strict=True)]
            found |= zip(WAYS, map(perplexity, means), strict=False)
            if len(means) == 2:
                found["average"] = perplexity(sum(means) / 2)
        return found


@dataclass(frozen=True)
class Evaluation:
    """What a split cost.

    unknown: targets that are the unknown word, forward; bands: what the targets cost whose rank by
    count in training, from 1, is one of (first, last); none where no ranks were given.
    """

    text: HeldOut
    total: Sums
    unknown: int
    bands: Mapping[tuple[int, int], Sums]

    @property
    def loss(self) -> float:
        """Mean -log p a token in nats, over all directions."""
        return sum(self.total.nats) / sum(self.total.tokens)

    def figures(self) -> dict[str, Any]:
        """All of it as plain values; None is what is not defined, `not_defined` says why.

        The losses `forward` and `backward` are total nats. Bits a byte are of the mean of both and
        of UTF-8; the text's segmentation is taken for its only one.
        """
        text, reasons = self.text, self._reasons()
        figures: dict[str, Any] = {}
        for unit, size in (
            ("", text.tokens),
            ("word_", text.words),
            ("character_", text.characters),
        ):
            found = self.total.perplexities(size)
            if unit == "word_" and "word" in reasons:
                found = dict.fromkeys(WAYS)
            figures |= {f"{way}_{unit}perplexity": value for way, value in found.items()}
        bits = self.loss * text.tokens / math.log(2) / text.text_bytes
        sizes = asdict(text)
        del sizes["unspaced"]
        return {
            **figures,
            "bits_per_byte": None if "bits_per_byte" in reasons else bits,
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
        if not self.bands:
            reasons["bands"] = (
                "the corpus that was trained on is not at hand; name it in train.corpus"
            )
        return reasons


def _by_direction(ending: str, values: Sequence[float]) -> dict[str, float | None]:
    return {f"{way}{ending}": value for way, value in zip(WAYS[:2], (*values, None), strict=False)}
