"""The table of scripts, and counting characters by script."""

import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.text.script_ranges import SCRIPT_RANGES
from preprocess.text.scripts import SCRIPTS, count_scripts, script_ranges

SCRIPT_OF = {
    chr(point): script
    for script in SCRIPTS
    for first, last in script_ranges(script)
    for point in range(first, last + 1)
}


def test_no_character_has_two_scripts() -> None:
    spans = sorted(span for script in SCRIPTS for span in script_ranges(script))
    assert all(first <= last < after for (first, last), (after, _) in pairwise(spans))
    assert len(SCRIPTS) < 256


@pytest.mark.parametrize("script", ["Latin", "Greek", "Han", "Thai", "Devanagari", "Arabic"])
def test_the_table_agrees_with_unicode(script: str) -> None:
    regex = pytest.importorskip("regex", reason="comes with Beam")
    known = regex.compile(rf"[\p{{Script={script}}}]").findall("".join(SCRIPT_OF))
    assert set(known) <= {c for c, name in SCRIPT_OF.items() if name == script}
    others = regex.compile(rf"[^\p{{Script={script}}}\p{{Script=Unknown}}]")
    assert not others.findall("".join(c for c, name in SCRIPT_OF.items() if name == script))


def test_shared_characters_belong_to_no_script() -> None:
    assert count_scripts(["1 + 1 = 2!", "。、«»", "e\u0301"]) == {"Latin": 1}


def test_characters_are_counted_by_script() -> None:
    texts = ["Straße 7", "東京タワー", "Москва, the", "ภาษาไทย", "हिन्दी"]
    assert count_scripts(texts) == {
        "Latin": 9,
        "Han": 2,
        "Katakana": 2,
        "Cyrillic": 6,
        "Thai": 7,
        "Devanagari": 6,
    }


def test_no_texts_give_no_counts() -> None:
    assert count_scripts([]) == {}
    assert count_scripts(["", " "]) == {}


@settings(deadline=None)
@given(st.lists(st.text(st.one_of(st.characters(max_codepoint=127), st.characters())), max_size=5))
def test_bulk_counts_equal_counts_of_single_characters(texts: list[str]) -> None:
    found = [SCRIPT_OF[c] for text in texts for c in text if c in SCRIPT_OF]
    assert count_scripts(texts) == {script: found.count(script) for script in set(found)}


def test_the_ranges_are_valid_code_points() -> None:
    for script in SCRIPT_RANGES:
        assert all(0 < first <= last <= sys.maxunicode for first, last in script_ranges(script))
