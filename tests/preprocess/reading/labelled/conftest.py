"""Reading a labelled file whose content a test gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.reading.labelled.examples import (
    InputText,
    LabelledText,
    Reading,
    TaggedSentence,
)
from preprocess.reading.labelled.inputs import read_texts, read_untagged
from preprocess.reading.labelled.options import LabelledTextOptions, TaggedOptions
from preprocess.reading.labelled.tagged import read_tagged_sentences
from preprocess.reading.labelled.texts import read_labelled_texts


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str | bytes], str]:
    """A function that writes a file without an ending, because none may matter."""

    def write(content: str | bytes) -> str:
        path = tmp_path / "file"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.fixture
def texts(file: Callable[[str | bytes], str]) -> Callable[..., Reading[LabelledText]]:
    def read(content: str | bytes, **options: Any) -> Reading[LabelledText]:
        reading = read_labelled_texts(file(content), LabelledTextOptions(**options))
        assert reading.read == len(reading.examples) + sum(reading.dropped.values())
        return reading

    return read


@pytest.fixture
def tagged(file: Callable[[str | bytes], str]) -> Callable[..., Reading[TaggedSentence]]:
    def read(content: str | bytes, **options: Any) -> Reading[TaggedSentence]:
        reading = read_tagged_sentences(file(content), TaggedOptions(**options))
        assert reading.read == len(reading.examples) + sum(reading.dropped.values())
        assert all(len(one.tokens) == len(one.tags) for one in reading.examples)
        return reading

    return read


@pytest.fixture
def inputs(
    file: Callable[[str | bytes], str],
) -> Callable[..., tuple[list[InputText], list[str]]]:
    def read(content: str | bytes, **options: Any) -> tuple[list[InputText], list[str]]:
        notes: list[str] = []
        found = list(read_texts(file(content), LabelledTextOptions(**options), notes.append))
        return found, notes

    return read


@pytest.fixture
def untagged(
    file: Callable[[str | bytes], str],
) -> Callable[..., tuple[list[TaggedSentence], list[str]]]:
    def read(content: str | bytes, **options: Any) -> tuple[list[TaggedSentence], list[str]]:
        notes: list[str] = []
        found = list(read_untagged(file(content), TaggedOptions(**options), notes.append))
        return found, notes

    return read
