"""The first documents of a source, as prepare would write them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from preprocess.config import PrepareConfig, Source
from preprocess.corpus.sampling.reading import FileSample
from preprocess.errors import one_line
from preprocess.quality.screening import Screener

FIRST_DOCUMENTS = 5
"""Documents of each source that are shown, from the start of its first file."""
SHOWN_CHARACTERS = 500
"""Characters of a document that are shown."""
_BATCH = 20
"""Documents that are screened together."""


@dataclass(frozen=True)
class FirstDocument:
    """A document that is shown.

    Attributes:
        text: its text, cleaned, without removed lines and with masked personal data; truncated.
        dropped: the reason that drops it; empty if it is kept. Duplicates are not searched.
    """

    text: str
    dropped: str = ""


def first_documents(
    samples: Sequence[FileSample], source: Source, config: PrepareConfig
) -> list[FirstDocument]:
    """Return the first documents of a source that are not empty after cleaning.

    Args:
        samples: the files of its sample.
        source: the source.
        config: settings of prepare.
    """
    screener = Screener(config, source)
    shown: list[FirstDocument] = []
    for texts, ids in _batches(samples):
        screened = screener.screen(texts, lambda ids=ids: ids)  # type: ignore[misc]
        for text, reason in zip(screened.texts, screened.reasons, strict=True):
            if not text:
                continue
            # Only those that are kept are masked already.
            beginning = screener.hidden(text, SHOWN_CHARACTERS) if reason else text
            shown.append(FirstDocument(one_line(beginning[:SHOWN_CHARACTERS]), reason or ""))
            if len(shown) == FIRST_DOCUMENTS:
                return shown
    return shown


def _batches(samples: Sequence[FileSample]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the texts and ids of documents, from the files that are read from their start."""
    for sample in samples:
        if sample.places.starts[:1] == (0,):
            for block in sample.blocks:
                ids = block.ids()
                for begin in range(0, len(ids), _BATCH):
                    end = begin + _BATCH
                    yield block.documents[begin:end], ids[begin:end]
