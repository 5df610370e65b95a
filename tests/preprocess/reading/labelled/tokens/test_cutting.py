"""Cutting a text into tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.reading.labelled.tokens.cutting import Cut, choose_cut, cut_text


@pytest.mark.parametrize(
    ("cut", "text", "tokens"),
    [
        (
            "words",
            " Bob's 3.5%\u00a0naïve_x … ",
            ["Bob", "'", "s", "3", ".", "5", "%", "naïve_x", "…"],
        ),
        ("words", "हिन्दी में", ["हिन्दी", "में"]),
        ("words", "cafe\u0301 a\u200cb", ["cafe\u0301", "a\u200cb"]),
        ("words", "\u0301a", ["\u0301", "a"]),
        ("spaces", "Bob's\t3.5%\n", ["Bob's", "3.5%"]),
        ("characters", "北 京e\u0301!", ["北", "京", "e\u0301", "!"]),
        ("words", " ", []),
    ],
)
def test_cuts(cut: Cut, text: str, tokens: list[str]) -> None:
    assert [text[start:end] for start, end in cut_text(text, cut)] == tokens


TEXT = st.text(st.sampled_from("aé \u0301\u200c北ภ3_.'\u2028\u3000😀"), max_size=20)


@given(TEXT, st.sampled_from(["words", "spaces", "characters"]))
def test_tokens_are_the_text_without_spaces(text: str, cut: Cut) -> None:
    offsets = cut_text(text, cut)
    tokens = [text[start:end] for start, end in offsets]
    assert "".join(tokens) == "".join(text.split())
    assert all(tokens)
    assert offsets == sorted(offsets)


@pytest.mark.parametrize(
    ("texts", "cut"),
    [
        (["我在北京。", "OK"], "characters"),
        (["ภาษาไทย"], "characters"),
        (["The word 北京", ""], "words"),
        (["한국어 문장", "1 2 3"], "words"),
        ([], "words"),
    ],
)
def test_the_cut_follows_from_the_script(texts: list[str], cut: Cut) -> None:
    assert choose_cut(texts) == cut
