"""`biloom score`: log-probability and perplexity of each text of a file or of standard input."""

import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

from lightning_modules.evaluation.scoring import Score, score_texts
from lightning_modules.vectors.pretrained import BiLM
from pipeline.log import tell
from pipeline.training.device import resolve_device
from preprocess.errors import UserError
from preprocess.reading.compression import find_compression
from preprocess.reading.encodings.likely import find_unmarked
from preprocess.reading.kinds.signatures import find_kind

BLOCK_BYTES = 1 << 18


class ScoreError(UserError):
    """A file of texts that cannot be read, or that does not contain lines of UTF-8 text."""


def score(file: str, model: str) -> None:
    """Print one line per text, with columns separated by tabs.

    The columns are: tokens predicted in each direction (including the end of the text); forward and
    backward log-probability in nats, and their mean; forward and backward perplexity per token; the
    exponential of the mean of both losses per token; unknown tokens. The backward columns are empty
    if the model has only a forward direction.

    Args:
        file: path of a file with one text per line; "-" reads standard input, whose lines are
            scored as they arrive.
        model: folder or URL of a model.

    Raises:
        ScoreError: the file cannot be read, or its first bytes are not UTF-8 text.
        ManifestError: there is no finished model.
        UserError: the model has no output layer.
    """
    found = BiLM.from_pretrained(model)
    found = found.to(resolve_device("auto"))
    invalid = 0
    try:
        with _opened(file) as stream:
            for number, lines in enumerate(_lines(stream)):
                if not number:
                    _check(file, b"\n".join(lines))
                texts = [line.decode("utf-8", "replace") for line in lines]
                invalid += sum("\ufffd" in text for text in texts)
                for one in score_texts(found, texts):
                    print(_columns(one))
                sys.stdout.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise ScoreError(
            f"{file}: {error.strerror}; name a text file, or - for standard input"
        ) from error
    if invalid:
        tell(f"bytes of {invalid:,} texts are not UTF-8; they were read as U+FFFD")


def _check(file: str, head: bytes) -> None:
    """Raise ScoreError if the first lines show that the file is not lines of UTF-8 text."""
    kind = find_kind(head, "utf-8", file)
    what = "a compressed file" if find_compression(head) else kind.what if kind else ""
    if what:
        raise ScoreError(
            f"{file}: this is {what}, not lines of text; name a file with one text per line"
        )
    if encoding := find_unmarked(head):
        raise ScoreError(
            f"{file}: this is text in {encoding}, not UTF-8; convert it (iconv -f {encoding} -t utf-8)"
        )


def _opened(file: str) -> BinaryIO:
    return os.fdopen(os.dup(0), "rb", 0) if file == "-" else open(file, "rb", 0)


def _lines(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Yield the complete lines that have arrived, so that those of a slow pipe are not held back."""
    rest = b""
    while data := stream.read(BLOCK_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield [line.removesuffix(b"\r") for line in lines]
    if rest:
        yield [rest.removesuffix(b"\r")]


def _columns(one: Score) -> str:
    backward = "" if one.backward is None else f"{one.backward:.4f}"
    behind = "" if one.backward is None else _figure(one.perplexity(one.backward))
    return "\t".join(
        [
            str(one.tokens),
            f"{one.forward:.4f}",
            backward,
            f"{one.log_probability:.4f}",
            _figure(one.perplexity(one.forward)),
            behind,
            _figure(one.perplexity(one.log_probability)),
            str(one.unknown),
        ]
    )


def _figure(perplexity: float) -> str:
    return f"{perplexity:.6g}"
