"""Reading texts to predict for, one by one, from a file or standard input."""

from collections.abc import Callable, Iterator

from preprocess.reading.labelled.examples import InputText, TaggedSentence
from preprocess.reading.labelled.options import LabelledTextOptions, TaggedOptions


def read_texts(
    path: str,
    options: LabelledTextOptions,
    tell: Callable[[str], None] = lambda note: None,
) -> Iterator[InputText]:
    """Yield the texts of a file, or of standard input if ``path`` is ``-``, as they are read.

    Args:
        path: plain text (one text a line), JSON Lines, or any format of labelled texts, whose labels
            are ignored.
        options: how to read it.
        tell: is called with each note: the format, guessed columns.
    """
    raise NotImplementedError


def read_untagged(
    path: str,
    options: TaggedOptions,
    tell: Callable[[str], None] = lambda note: None,
) -> Iterator[TaggedSentence]:
    """Yield sentences without tags: CoNLL columns, JSON Lines, or plain text, one sentence a line."""
    raise NotImplementedError
