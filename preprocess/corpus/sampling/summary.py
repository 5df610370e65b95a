"""What the sample of a source contains: documents, lengths, scripts, languages, and what is left out."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from preprocess.config import PrepareConfig, Source
from preprocess.corpus.sampling.languages import LANGUAGE_CHARACTERS, language_detector
from preprocess.corpus.sampling.reading import FileSample
from preprocess.corpus.sampling.repeats import Repeats
from preprocess.quality.screening import Screener
from preprocess.reading.block import EXCERPT_CHARACTERS, Rejected, shortened
from preprocess.text.scripts import count_scripts

LANGUAGE_DOCUMENTS = 300
"""Most documents of a source whose language is detected."""
EXAMPLES = 3
"""Rejected records that are kept for each reason."""


@dataclass
class SourceSummary:
    """What a source contains, estimated from its sample.

    Attributes:
        raw_bytes: raw bytes that were read.
        documents: number of the documents of the source.
        text_bytes: UTF-8 bytes of these documents, before cleaning.
        characters: characters of the documents that are kept, after cleaning.
        seconds: CPU seconds to read the source.
        lengths: characters of each kept document of the sample after cleaning, and how many documents it
            stands for, in rising order.
        scripts: characters of each script in the kept documents of the sample.
        languages: number of documents in each language, by ISO 639 code, of those whose language was
            detected; None if the package for it is not installed.
        dropped: number of records and documents of the sample that are not kept, by reason; duplicates
            are not counted.
        examples: some records and documents of each reason.
        repeats: how much text repeats earlier documents.
    """

    raw_bytes: float = 0
    documents: float = 0
    text_bytes: float = 0
    characters: float = 0
    seconds: float = 0
    lengths: list[tuple[int, float]] = field(default_factory=list)
    scripts: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] | None = None
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Rejected]] = field(default_factory=dict)
    repeats: Repeats = field(default_factory=Repeats)

    def length_at(self, share: float) -> int:
        """Return the length that a share of the documents do not exceed; 0 without documents."""
        left = share * sum(weight for _, weight in self.lengths)
        for length, weight in self.lengths:
            left -= weight
            if left < 0:
                return length
        return self.lengths[-1][0] if self.lengths else 0


def summarise(
    samples: Sequence[FileSample],
    source: Source,
    config: PrepareConfig,
    total_bytes: int,
    seed: int,
) -> SourceSummary:
    """Return what a source contains.

    Args:
        samples: the files of its sample.
        source: the source.
        config: settings of prepare.
        total_bytes: raw bytes of all its files.
        seed: seed of the documents whose language is detected.

    Raises:
        UserError: a filter needs a package that is not installed.
    """
    found = SourceSummary()
    screener = Screener(config, source)
    hits = sum(sample.places.hits for sample in samples)
    drawn: list[str] = []
    draw = random.Random(seed)
    for sample in samples:
        _add_rejected(found, sample, screener)
        weight = sample.weight * total_bytes / hits if hits else 0.0
        if not weight:
            continue
        found.raw_bytes += sample.raw_bytes
        found.seconds += weight * sample.seconds
        for block in sample.blocks:
            screened = screener.screen(block.documents, block.ids)
            texts = screened.texts
            found.documents += weight * len(texts)
            found.text_bytes += weight * sum(map(text_bytes, block.documents))
            kept = []
            for index, (text, reason) in enumerate(zip(texts, screened.reasons, strict=True)):
                why = "empty" if config.drop_empty and not text else reason
                if why:
                    found.dropped[why] += 1
                    if len(found.examples.get(why, ())) < EXAMPLES:
                        excerpt = shortened(screener.hidden(text, EXCERPT_CHARACTERS))
                        found.examples.setdefault(why, []).append(
                            Rejected(why, excerpt, block.where(index))
                        )
                else:
                    kept.append(text)
            found.lengths += [(len(text), weight) for text in kept]
            found.characters += weight * sum(map(len, kept))
            found.scripts.update(count_scripts(kept))
            found.repeats.add(kept)
            drawn += draw.sample(kept, min(len(kept), LANGUAGE_DOCUMENTS // 10))
    found.lengths.sort()
    draw.shuffle(drawn)
    if detect := language_detector():
        shown = [text[:LANGUAGE_CHARACTERS] for text in drawn[:LANGUAGE_DOCUMENTS]]
        found.languages = Counter(detect(text) for text in shown if any(map(str.isalpha, text)))
    return found


def _add_rejected(found: SourceSummary, sample: FileSample, screener: Screener) -> None:
    for block in sample.blocks:
        for record in block.rejected:
            found.dropped[record.reason] += 1
            examples = found.examples.setdefault(record.reason, [])
            if len(examples) < EXAMPLES:
                examples.append(replace(record, excerpt=screener.hidden_excerpt(record.excerpt)))


def text_bytes(text: str) -> int:
    """Return the UTF-8 bytes of a text that has not been cleaned; lone surrogates count as one byte."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
