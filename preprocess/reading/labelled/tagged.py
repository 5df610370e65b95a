"""Reading sentences with a tag for each token."""

from preprocess.reading.labelled.examples import Reading, TaggedSentence
from preprocess.reading.labelled.options import TaggedOptions


def read_tagged_sentences(path: str, options: TaggedOptions) -> Reading[TaggedSentence]:
    """Read the tagged sentences of a file.

    Raises:
        UserError: the file cannot be read, its format or columns cannot be found, or it has no
            example.
    """
    raise NotImplementedError
