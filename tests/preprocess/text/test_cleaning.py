"""Cleaning: which characters are removed or kept, equal results in batches, and idempotence."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.text.cleaning import Cleaner
from preprocess.text.config import CleaningConfig

CONFIGS = [
    CleaningConfig(unicode=unicode, control_characters=control, whitespace=whitespace)
    for unicode in ("NFC", "NFKC", "none")
    for control in ("remove", "keep")
    for whitespace in ("collapse", "keep")
]
ODD = st.sampled_from(
    " \t\n\r\x0b\x1c\x85\xa0\u2003\u2028\u3000\x00\x07\x7f\x9f\ufeff\ud800a\u00e9e\u0301\u00a8\u212b\u200d"
)
TEXTS = st.text(
    st.one_of(ODD, st.characters(exclude_categories=()), st.characters(max_codepoint=127))
)


def clean(cleaner: Cleaner, text: str) -> str:
    """Return one cleaned text."""
    [cleaned] = cleaner.clean_batch([text])
    return cleaned


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@settings(deadline=None, max_examples=60)
@given(texts=st.lists(TEXTS, max_size=5))
def test_a_batch_is_cleaned_like_its_texts_one_by_one_and_cleaning_is_idempotent(
    config: CleaningConfig, texts: list[str]
) -> None:
    cleaner = Cleaner(config)
    cleaned = [clean(cleaner, text) for text in texts]
    assert cleaner.clean_batch(texts) == cleaned
    assert [clean(cleaner, text) for text in cleaned] == cleaned


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@settings(deadline=None, max_examples=30)
@given(texts=st.lists(TEXTS, max_size=5))
def test_cleaned_texts_can_be_encoded(config: CleaningConfig, texts: list[str]) -> None:
    cleaner = Cleaner(config)
    "".join(cleaner.clean_batch(texts)).encode()
    "".join(clean(cleaner, text) for text in texts).encode()


@settings(deadline=None)
@given(texts=st.lists(TEXTS, max_size=5))
def test_each_step_counts_the_documents_it_changed(texts: list[str]) -> None:
    cleaner = Cleaner(CleaningConfig(unicode="NFKC"))
    cleaner.clean_batch(texts)
    steps = [
        ("control_characters", CleaningConfig(unicode="none", whitespace="keep")),
        ("unicode", CleaningConfig(unicode="NFKC", whitespace="keep")),
        ("whitespace", CleaningConfig(unicode="NFKC")),
    ]
    for step, config in steps:
        after = [clean(Cleaner(config), text) for text in texts]
        changed = sum(old != new for old, new in zip(texts, after, strict=True))
        assert cleaner.counts[step] == changed, step
        texts = after


def test_counts_add_up_over_batches() -> None:
    cleaner = Cleaner(CleaningConfig())
    cleaner.clean_batch(["a  b", "c", "d\x00"])
    cleaner.clean_batch([" e", "f", "e\u0301 "])
    assert cleaner.counts == {"control_characters": 1, "unicode": 1, "whitespace": 3}


@pytest.mark.slow
def test_exactly_the_described_characters_are_removed() -> None:
    cleaner = Cleaner(CleaningConfig(unicode="none", whitespace="keep"))
    everything = [chr(point) for point in range(sys.maxunicode + 1)]
    removed = {
        c
        for c in everything
        if (unicodedata.category(c) in ("Cc", "Cs") and not c.isspace()) or c == "\ufeff"
    }
    assert {c for c in everything if not clean(cleaner, c)} == removed
    assert cleaner.clean_batch(everything) == ["" if c in removed else c for c in everything]


def test_a_control_character_is_found_in_a_batch_of_ascii() -> None:
    cleaner = Cleaner(CleaningConfig())
    for c in [c for c in map(chr, range(128)) if unicodedata.category(c) == "Cc"]:
        assert cleaner.clean_batch(["a", f"b{c}", "c"]) == ["a", "b", "c"], ascii(c)


def test_every_unicode_whitespace_becomes_one_space() -> None:
    cleaner = Cleaner(CleaningConfig(unicode="none", control_characters="keep"))
    spaces = [c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace()]
    assert "\u3000" in spaces
    assert "\xa0" in spaces
    texts = [f"{c}{c}a{c}b {c} c{c}" for c in spaces]
    assert cleaner.clean_batch(texts) == ["a b c"] * len(spaces)


def test_joiners_and_direction_marks_stay() -> None:
    text = "نمی\u200cخواهم क्\u200dष 👩\u200d👧 \u200fשלום\u200e"
    assert clean(Cleaner(CleaningConfig()), text) == text


def test_an_accent_joins_its_letter_after_a_control_character_is_removed() -> None:
    cleaner = Cleaner(CleaningConfig())
    assert clean(cleaner, "e\x00\u0301") == "\u00e9"
    assert cleaner.clean_batch(["e\x00\u0301", "x"]) == ["\u00e9", "x"]


def test_spaces_are_collapsed_after_a_control_character_between_them_is_removed() -> None:
    for text in ("a \x00 b", "a \x00 \u6771"):
        assert Cleaner(CleaningConfig()).clean_batch([text, "x"]) == [
            text.replace("\x00 ", ""),
            "x",
        ]


def test_a_clean_text_is_returned_as_the_same_object() -> None:
    texts = ["a b", "", "\u6771 \u4eac", "c" * 3, "\u00e9"]
    for old, new in zip(texts, Cleaner(CleaningConfig()).clean_batch(texts), strict=True):
        assert new is old


def test_an_empty_batch_stays_empty() -> None:
    for config in CONFIGS:
        assert Cleaner(config).clean_batch([]) == []


def test_a_lone_surrogate_is_replaced_if_control_characters_are_kept() -> None:
    cleaner = Cleaner(CleaningConfig(control_characters="keep", whitespace="keep"))
    assert clean(cleaner, "a\x00\ud83d b") == "a\x00\ufffd b"
    assert cleaner.clean_batch(["a\x00\ud83d b", "\udfff"]) == ["a\x00\ufffd b", "\ufffd"]


def test_steps_that_are_off_change_nothing() -> None:
    config = CleaningConfig(unicode="none", control_characters="keep", whitespace="keep")
    texts = [" a\x00\t\u00a0e\u0301 \n", "", "\ufeff"]
    assert Cleaner(config).clean_batch(texts) == texts
