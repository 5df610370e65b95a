"""The tags of the CRF and those of the file."""

import itertools
from collections.abc import Sequence

import pytest

from lightning_modules.tasks.tagging.config import InnerScheme
from lightning_modules.tasks.tagging.schemes import detect_scheme
from lightning_modules.tasks.tagging.tagset import TagSet

FILES: dict[str, list[list[str]]] = {
    "IOB1": [["I-A", "B-A", "I-A", "O", "I-B"], ["O", "I-B", "I-B"]],
    "IOB2": [["B-A", "B-A", "I-A", "O", "B-B"], ["O", "B-B", "I-B"]],
    "IOBES": [["S-A", "B-A", "E-A", "O", "S-B"], ["B-B", "I-B", "E-B"]],
    "BILOU": [["U-A", "B-A", "L-A", "O", "U-B"], ["B-B", "I-B", "L-B"]],
    "BMEWO": [["W-A", "B-A", "E-A", "O", "W-B"], ["B-B", "M-B", "E-B"]],
    "IO": [["I-A", "I-A", "O", "I-B"], ["O", "I-B", "I-A"]],
    "bare": [["A", "A", "O", "B_", "O", "O", "O"], ["O", "B_", "A"]],
    "no label": [["B", "I", "O", "B", "B"], ["O", "B", "I"]],
}


def tag_set(file: str, inner: InnerScheme = "auto") -> TagSet:
    return TagSet.of(detect_scheme(FILES[file]), inner)


@pytest.mark.parametrize("inner", ["auto", "file", "IOB1", "IOB2", "IOBES", "BILOU"])
@pytest.mark.parametrize("file", FILES)
def test_tags_of_the_file_come_back(file: str, inner: InnerScheme) -> None:
    tags = tag_set(file, inner)
    for sentence in FILES[file]:
        assert [*tags.decode(tags.encode(sentence))] == sentence


def test_the_inner_scheme_is_iobes_unless_the_file_is_io() -> None:
    tags = tag_set("IOB1")
    assert (tags.scheme, tags.file_scheme) == ("IOBES", "IOB1")
    assert {*tags.tags} == {"O", *(f"{prefix}-{label}" for prefix in "BIES" for label in "AB")}
    assert tag_set("IO").scheme == tag_set("IO", "BILOU").scheme == "IO"
    assert tag_set("IOB1", "file").scheme == "IOB1"


@pytest.mark.parametrize("file", ["IOB1", "IOB2", "IOBES", "BILOU"])
def test_constraints_allow_the_tags_of_the_file_and_forbid_open_spans(file: str) -> None:
    tags = tag_set(file, "file")
    follows, start, end = tags.constraints()
    assert follows is not None
    assert start is not None
    assert end is not None
    for sentence in FILES[file]:
        outputs = tags.encode(sentence)
        assert start[outputs[0]]
        assert end[outputs[-1]]
        assert all(follows[a, b] for a, b in itertools.pairwise(outputs))
    assert not follows.all()
    if file in ("IOBES", "BILOU"):
        assert not end[tags.tags.index("B-A")]
        assert not follows[tags.tags.index("B-A"), tags.tags.index("O")]


def test_tags_without_spans_are_plain_outputs() -> None:
    sentences: list[Sequence[str]] = [["NN", "VB", "NN"], ["DT", "NN", "-X-"]]
    tags = TagSet.of(detect_scheme(sentences), "auto")
    assert tags.scheme is None
    assert tags.tags == ("-X-", "DT", "NN", "VB")
    assert tags.decode(tags.encode(["VB", "-X-"])) == ("VB", "-X-")
    assert tags.constraints() == (None, None, None)
