"""Tag schemes: conversion, constraints, detection."""

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.tasks.tagging.schemes import (
    SchemeReport,
    detect_scheme,
    tags_for,
    transitions,
)
from lightning_modules.tasks.tagging.spans import (
    SCHEMES,
    Scheme,
    Span,
    convert,
    spans_of,
    strict_spans_of,
    write_spans,
)

Sentence = tuple[tuple[Span, ...], int]


@st.composite
def spans(draw: st.DrawFn, apart: bool = False) -> Sentence:
    """Spans that do not overlap, and the length of their sentence."""
    found: list[Span] = []
    place = draw(st.integers(0, 2))
    for _ in range(draw(st.integers(0, 5))):
        end = place + draw(st.integers(1, 4))
        found.append(Span(place, end, draw(st.sampled_from(["PER", "LOC", "A-B", "_"]))))
        place = end + draw(st.integers(1 if apart else 0, 2))
    return tuple(found), place + draw(st.integers(0, 2))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_come_back_from_the_tags(scheme: Scheme) -> None:
    @settings(deadline=None)
    @given(spans(apart=scheme == "IO"))
    def check(sentence: Sentence) -> None:
        wanted, length = sentence
        tags = write_spans(wanted, length, scheme)
        assert spans_of(tags) == wanted
        assert strict_spans_of(tags, scheme) == wanted

    check()


@settings(deadline=None)
@given(spans(), st.sampled_from(SCHEMES[1:]), st.sampled_from(SCHEMES[1:]))
def test_conversion_is_exact(sentence: Sentence, source: Scheme, target: Scheme) -> None:
    tags = write_spans(*sentence, source)
    converted = convert(tags, target)
    assert converted == write_spans(*sentence, target)
    assert convert(converted, source) == tags


def test_io_cannot_separate_what_touches() -> None:
    with pytest.raises(ValueError, match="separate two spans of 'PER' that touch, at token 1"):
        convert(["B-PER", "B-PER"], "IO")
    assert convert(["B-PER", "B-LOC"], "IO") == ("I-PER", "I-LOC")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_allowed_sequences_are_those_that_a_conversion_leaves(scheme: Scheme) -> None:
    """A sequence keeps the rules of a scheme if and only if writing its spans gives it again."""
    tags = tags_for(["X", "Y"], scheme)
    start, follows, end = transitions(tags, scheme)
    for length in (1, 2, 3):
        for path in product(range(len(tags)), repeat=length):
            sequence = tuple(tags[index] for index in path)
            steps = all(follows[a, b] for a, b in pairwise(path))
            assert (start[path[0]] and steps and end[path[-1]]) == (
                convert(sequence, scheme) == sequence
            ), sequence


def test_all_tags_of_labels() -> None:
    assert tags_for(["X", "X"], "IO") == ("O", "I-X")
    assert tags_for(["X"], "IOB1") == ("O", "B-X", "I-X")
    assert tags_for(["X"], "IOB2") == ("O", "B-X", "I-X")
    assert tags_for(["_"], "IOBES") == ("O", "B", "E", "I", "S")
    assert tags_for(["X", "Y"], "BILOU")[1:5] == ("B-X", "I-X", "L-X", "U-X")


def test_transitions_need_tags_of_the_scheme() -> None:
    with pytest.raises(ValueError, match="'S-X' is no tag of IOB2; convert the tags first"):
        transitions(["O", "S-X"], "IOB2")


def detect(*sentences: str) -> SchemeReport:
    return detect_scheme([sentence.split() for sentence in sentences])


@pytest.mark.parametrize(
    ("scheme", "sentences"),
    [
        ("IO", ["I-PER I-PER O I-LOC"]),
        ("IOB1", ["I-PER I-PER O", "O I-PER B-PER O"]),
        ("IOB2", ["B-PER I-PER O B-LOC", "O B-PER B-PER"]),
        ("IOB2", ["B-PER O"]),
        ("IOBES", ["S-PER O B-LOC E-LOC"]),
        ("IOBES", ["B-PER M-PER E-PER S-PER"]),
        ("IOBES", ["B E S B M E"]),
        ("BILOU", ["U-PER O B-LOC L-LOC"]),
        ("IO", ["PER PER O O LOC"]),
        (None, ["NNP VBZ JJ NN . $"]),
    ],
)
def test_the_scheme_is_detected(scheme: Scheme | None, sentences: list[str]) -> None:
    report = detect(*sentences)
    assert report.scheme == scheme
    assert report.invalid == 0


def test_a_few_invalid_tags_do_not_change_the_scheme() -> None:
    report = detect_scheme(
        [["B-PER", "I-PER", "O"]] * 20 + [["O", "I-PER", "I-PER"], ["I-LOC"]],
        [f"line {4 * number + 1}" for number in range(22)],
    )
    assert (report.scheme, report.invalid, report.violations["IOB2"]) == ("IOB2", 2, 2)
    assert report.labels == {"PER": 21, "LOC": 1}
    assert report.describe() == (
        "tag scheme: IOB2 (prefixes: B 20, I 23, O 21; wrong tags in other schemes: IO 20, "
        "IOB1 20, IOBES 24, BILOU 24)",
        "tags that are not valid in IOB2: 2, in 2 of 22 sentences; they are read as conlleval does: "
        "line 81, token 2: I-PER after O; line 85, token 1: I-LOC at the start",
    )


def test_a_span_that_is_open_at_the_end_is_invalid() -> None:
    report = detect(*["S-PER B-PER E-PER"] * 5, "O B-PER")
    assert (report.scheme, report.invalid) == ("IOBES", 1)
    assert report.shown == ("sentence 6, token 2: B-PER at the end",)


def test_tags_of_another_column_are_told() -> None:
    report = detect("NNP VBZ JJ", "NN TO")
    assert report.labels == {"NNP": 1, "VBZ": 1, "JJ": 1, "NN": 1, "TO": 1}
    (line,) = report.describe()
    assert line.startswith("tag scheme: none; the 5 different tags ('NNP', 'VBZ', 'JJ', 'NN', 'TO'")
    assert line.endswith("check the column of the tags")


def test_labels_without_prefixes_are_told() -> None:
    assert detect("PER O LOC").describe()[1] == (
        "the tags have no prefixes; a run of one tag is a span"
    )


@pytest.mark.parametrize(
    ("tags", "right"),
    [
        ("B_PER I_PER O", "write 'B-PER' for 'B_PER'"),
        ("b-per i-per o", "write 'B-per' for 'b-per'"),
        ("PER-B PER-I O", "write 'B-PER' for 'PER-B'"),
    ],
)
def test_another_form_of_the_prefix_is_told(tags: str, right: str) -> None:
    assert right in detect(tags).describe()[-1]


def test_of_equal_schemes_the_one_with_all_letters_is_taken() -> None:
    assert detect("O B-PER", "I-LOC O", "I-LOC O").scheme == "IOB1"


def test_no_sentence_has_no_scheme() -> None:
    assert detect().scheme is not None
