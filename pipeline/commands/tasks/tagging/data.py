"""Reading the files of a tagger, and telling what is in them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightning_modules.tasks.features import Features, features_of
from lightning_modules.tasks.tagging.joining import (
    Joined,
    TextCutter,
    are_segmented,
    count_pieces,
    joined_text,
    share_found,
)
from lightning_modules.tasks.tagging.schemes import SchemeReport, detect_scheme
from lightning_modules.tasks.tagging.spans import spans_of
from lightning_modules.tasks.tagging.tagset import TagSet
from lightning_modules.tasks.vector_source import VectorSource
from pipeline.console import Console
from preprocess.errors import UserError
from preprocess.reading.labelled.description import describe
from preprocess.reading.labelled.examples import TaggedSentence
from preprocess.reading.labelled.options import TaggedOptions
from preprocess.reading.labelled.tagged import read_tagged_sentences
from preprocess.tokenizers.segmentation.segmenters import SEGMENTERS, SegmenterName

SAMPLE = 1000
"""Training sentences that a segmenter is compared with."""
SHOWN = 5
"""Unknown labels that are shown."""
MOST_TAGS = 500
"""Largest number of tags of a CRF. Training needs memory for tags^2 numbers per token."""


class TagError(UserError):
    """Raised if a file cannot train or test a tagger."""


@dataclass(frozen=True)
class TagFile:
    """The sentences of a file.

    Attributes:
        sentences: the sentences; none is empty.
        report: the scheme of their tags.
        aside: number of spans that tags cannot express.
    """

    sentences: tuple[TaggedSentence, ...]
    report: SchemeReport
    aside: int


def read_file(path: str, options: TaggedOptions, console: Console) -> TagFile:
    """Read the tagged sentences of a file, and print what it holds and what is left out.

    Raises:
        UserError: the file cannot be read, or has no sentences.
    """
    reading = read_tagged_sentences(path, options)
    for line in describe(reading):
        console.line(line)
    sentences = reading.examples
    report = detect_scheme([one.tags for one in sentences], [one.place for one in sentences])
    for line in report.describe():
        console.line(line)
    return TagFile(sentences, report, len(reading.aside))


def held_out(
    sentences: Sequence[TaggedSentence], share: float, seed: int
) -> tuple[list[TaggedSentence], list[TaggedSentence]]:
    """Divide sentences into a training part and a dev part.

    Equal sentences are in the same part, because a dev sentence that is also a training sentence says
    nothing. The order of the file is kept.

    Raises:
        TagError: there are too few sentences.
    """
    distinct = list(dict.fromkeys(sentence.tokens for sentence in sentences))
    count = round(share * len(distinct))
    if not 0 < count < len(distinct):
        raise TagError(
            f"{len(distinct):,} different sentences are too few to hold out a share of {share:g}; name a "
            "dev file with dev=FILE, or change dev_share"
        )
    drawn = np.random.default_rng(seed).permutation(len(distinct))[:count]
    chosen = {distinct[number] for number in drawn.tolist()}
    train = [sentence for sentence in sentences if sentence.tokens not in chosen]
    return train, [sentence for sentence in sentences if sentence.tokens in chosen]


def in_scheme_of(file: TagFile, tags: TagSet, path: str, console: Console) -> list[TaggedSentence]:
    """Return the sentences of a file with its tags written as a tagger predicts them.

    Raises:
        TagError: the tagger predicts spans and the file has none, or the reverse; or it predicts IO
            tags, and spans of the file touch.
    """
    if (file.report.scheme is None) != (tags.file_scheme is None):
        kinds = ("tags of single tokens", "tags of spans")
        raise TagError(
            f"{path}: these are {kinds[file.report.scheme is not None]}, but the tagger predicts "
            f"{kinds[tags.file_scheme is not None]}; name the column of the tags with column=..."
        )
    # Valid tags have the same spans in every scheme that allows them.
    if tags.file_scheme is None or not file.report.violations[tags.file_scheme]:
        return [*file.sentences]
    if file.report.scheme == tags.file_scheme:
        return [*file.sentences]
    console.line(f"tags converted from {file.report.scheme} to {tags.file_scheme}")
    try:
        return [replace(one, tags=tags.as_in_file(one.tags)) for one in file.sentences]
    except ValueError as error:
        raise TagError(f"{path}: {error} in the file that the tagger is trained on") from error


def tell_repeated(
    train: Sequence[TaggedSentence], dev: Sequence[TaggedSentence], console: Console
) -> None:
    """Print how many dev sentences are also training sentences."""
    known = {sentence.tokens for sentence in train}
    both = sum(sentence.tokens in known for sentence in dev)
    if both == len(dev):
        console.warn(
            "all dev sentences are also training sentences: their scores say nothing about other "
            "text; name another file with dev=FILE"
        )
    elif both:
        console.warn(f"{both:,} of {len(dev):,} dev sentences are also training sentences")


def check_tags(path: str, sentences: Sequence[TaggedSentence], tags: TagSet) -> None:
    """Check that a tagger can be trained on the sentences of a file.

    Raises:
        TagError: all tokens have one tag, or there are too many tags.
    """
    seen = {tag for sentence in sentences for tag in sentence.tags}
    if len(seen) < 2:
        raise TagError(
            f"{path}: all tokens have the tag {next(iter(seen))!r:.40}, so that there is nothing "
            "to learn; name the column of the tags with column=..."
        )
    if len(tags.tags) > MOST_TAGS:
        raise TagError(
            f"{path}: {len(tags.tags):,} tags; a CRF compares each tag with each other, and takes at most "
            f"{MOST_TAGS:,}. Merge rare labels, name another column with column=..., or, for spans, set "
            "scheme=IOB2, which has two tags for each label"
        )


def tell_unseen(tags: TagSet, sentences: Sequence[TaggedSentence], console: Console) -> None:
    """Print which tags or labels of the scored sentences a tagger cannot predict, and if they have no span."""
    if tags.file_scheme is None:
        what, known = "tags", {*tags.tags}
        found = {tag for one in sentences for tag in one.tags}
    else:
        what, known = (
            "labels of spans",
            {span.label for tag in tags.tags for span in spans_of([tag])},
        )
        found = {span.label for one in sentences for span in spans_of(one.tags)}
        if not found:
            console.warn(
                f"none of the {len(sentences):,} scored sentences has a span, so that F1 is 0 whatever is "
                "predicted; score more sentences, or name another file"
            )
    if unseen := sorted(found - known):
        shown = ", ".join(f"{name!r:.40}" for name in unseen[:SHOWN])
        console.warn(
            f"{len(unseen):,} {what} are not in training, so that they cannot be predicted: {shown}"
        )


def tell_segmenter(
    name: SegmenterName | None, train: Sequence[TaggedSentence], join: Joined, console: Console
) -> None:
    """Print which share of the training tokens the segmenter of plain text finds.

    Raises:
        CuttingError: the training tokens are no words of text without spaces.
        SegmenterError: the segmenter is not installed.
    """
    if name is not None:
        TextCutter(are_segmented(train), name)
        share = share_found(train[:SAMPLE], join, name)
        console.line(f"{name} finds {share:.1%} of the words of the training file")
    elif are_segmented(train):
        console.warn(
            "the tokens are words of text without spaces between them: to predict for plain text, "
            f"name a segmenter with segmenter= ({', '.join(SEGMENTERS)})"
        )


def vectors_of(
    sentences: Sequence[TaggedSentence], join: Joined, source: VectorSource, console: Console
) -> Features:
    """Return the vectors of the words of sentences, with a progress bar.

    Raises:
        FeatureError: the model and the cache cannot give them.
    """
    texts = [joined_text(sentence, join) for sentence in sentences]
    if source.model is not None:
        for line in count_pieces(source.model, texts).describe():
            console.warn(line)
    with console.bar("vectors", len(texts)) as bar:
        return features_of(source.model, source.cache, texts, "word", bar)


JOINING = {
    "text": "the language model reads the text of each sentence",
    "space": "the language model reads tokens joined by spaces",
    "none": "the language model reads tokens joined without spaces",
    "script": "the language model reads tokens joined by spaces, except beside characters of scripts "
    "without spaces",
}
"""How a value of join is told."""
