"""Spans of characters become tags, or are set aside."""

from hypothesis import given
from hypothesis import strategies as st

from preprocess.reading.labelled.tokens.alignment import align, locate
from preprocess.reading.labelled.tokens.cutting import cut_text

TEXT = "one two, three  four"


@given(st.lists(st.tuples(st.integers(-2, 23), st.integers(-2, 23), st.just("X")), max_size=6))
def test_every_span_is_in_the_tags_or_aside(spans: list[tuple[int, int, str]]) -> None:
    offsets = cut_text(TEXT, "words")
    found = align([[*span] for span in spans], TEXT, offsets, "line 1")
    starts = [i for i, tag in enumerate(found.tags) if tag == "B-X"]
    assert len(starts) + len(found.aside) == len(spans)
    for first in starts:
        last = first
        while last + 1 < len(offsets) and found.tags[last + 1] == "I-X":
            last += 1
        words = TEXT[offsets[first][0] : offsets[last][1]]
        assert any(0 <= a < b <= len(TEXT) and TEXT[a:b].strip() == words for a, b, _ in spans)


def test_touching_spans_stay_apart() -> None:
    found = align([[0, 3, "X"], [3, 7, "X"]], TEXT, cut_text(TEXT, "words"), "")
    assert found.tags == ("B-X", "B-X", "O", "O", "O")


def test_tokens_are_located() -> None:
    assert locate(["one", "two,", "three", "four"], TEXT) == [(0, 3), (4, 8), (9, 14), (16, 20)]
    assert locate(["one", "three"], TEXT) is None
    assert locate(["one", "two,", "three"], TEXT) is None
    assert locate(["five"], TEXT) is None
