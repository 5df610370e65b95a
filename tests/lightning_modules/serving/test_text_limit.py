"""The limit of the length of a text."""

from pathlib import Path

import numpy as np
import pytest

from lightning_modules.serving.source import ServedVectors
from lightning_modules.serving.text_limit import Limit, LongTextError, truncated
from lightning_modules.vectors.pretrained import BiLM


@pytest.fixture(scope="module")
def model(trained: Path) -> BiLM:
    return BiLM.from_pretrained(trained / "export")


def test_a_long_text_is_refused_or_truncated(model: BiLM) -> None:
    source = ServedVectors(model, None)
    choice = source.choose("all", "word", None)
    with pytest.raises(
        LongTextError, match=r"^`inputs\[1\]` has 3 tokens, but at most 2 are allowed"
    ):
        source.prepare(["kana", "kana lona mina"], choice, Limit(2))
    [cut] = source.prepare(["kana lona mina"], choice, Limit(2, truncate=True))
    assert cut.text is not None
    assert (cut.text.text, cut.units, cut.tokens) == ("kana lona", 2, 2)
    assert [word.spelling for word in cut.text.words] == ["kana", "lona"]
    [vectors] = source.compute([cut.text], choice, 50)
    np.testing.assert_array_equal(vectors, model.embed(["kana lona"], unit="word")[0].vectors)


def test_truncation_keeps_the_words_of_the_first_tokens(model: BiLM) -> None:
    [read] = model.reader.read([["kana", "lona", "mina"]])
    assert truncated(read, 1).words == read.words[:1]


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        ("a b c d e f", "a b c d "),  # twice as many words as tokens
        (" a  b c", " a  b c"),
        ("x" * 200, "x" * 128),  # 64 characters for each token
        (["a", "b", "c", "d", "e"], ["a", "b", "c", "d"]),
        (["x" * 100, "y" * 100], ["x" * 100]),
        (["x" * 200, "y"], ["x" * 128]),
        (["x" * 200], ["x" * 128]),
    ],
)
def test_a_huge_text_is_cut_or_refused_before_it_is_tokenised(
    text: str | list[str], beginning: str | list[str]
) -> None:
    assert Limit(2, truncate=True).beginning(text, 7) == beginning
    if beginning == text:
        assert Limit(2).beginning(text, 7) == text
        return
    with pytest.raises(
        LongTextError,
        match=r"^`inputs\[7\]` has too many words or characters for 2 tokens, the limit; shorten it, or",
    ):
        Limit(2).beginning(text, 7)
