"""Texts whose words are given by their places, before and after cleaning."""

import copy
import pickle
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import CharConfig, SentencePieceConfig, WordConfig
from preprocess.errors import UserError
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.aligned_text import TextAligner
from preprocess.tokenizers.load import train_tokenizer
from preprocess.tokenizers.segmentation.spanned_text import SpannedText, cleaned_places

TEXT = "I don't know, José!"
KINDS: dict[str, Any] = {
    "word": WordConfig(),
    "char": CharConfig(),
    "pieces": SentencePieceConfig(vocabulary=300),
}


def split(text: str) -> SpannedText:
    """Cut a text into words, digits, runs of whitespace and single other characters."""
    pattern = r"[^\W\d_]+|\d+|\s+|."
    return SpannedText(text, [m.span() for m in re.finditer(pattern, text, re.DOTALL)])


def places(text: SpannedText, **cleaning: Any) -> list[str]:
    clean = Cleaner(CleaningConfig(**cleaning)).clean_batch
    [cleaned] = clean([text])
    return [cleaned[start:end] for start, end in cleaned_places(text, cleaned, clean)]


def test_places_are_those_of_the_cleaned_text() -> None:
    assert places(SpannedText("", [])) == []
    assert places(split("a b")) == ["a", "", "b"]
    # Removed characters, whitespace, and an accent that is joined with its letter.
    text = SpannedText("  a\x00b \n\n Jose\u0301 c", [(0, 2), (2, 5), (5, 9), (9, 14), (15, 16)])
    assert places(text) == ["", "ab", "", "Jos\u00e9", "c"]
    # Longer and shorter forms.
    forms = SpannedText("ﬁ½ ｶﾞ…x", [(0, 1), (1, 2), (2, 3), (3, 5), (5, 6), (6, 7)])
    assert places(forms, unicode="NFKC") == ["fi", "1⁄2", "", "ガ", "...", "x"]
    # The accent is a word of its own: nothing is left of it.
    apart = SpannedText("ae\u0301b", [(0, 2), (2, 3), (3, 4)])
    assert places(apart) == ["aé", "", "b"]


@settings(deadline=None, max_examples=80)
@given(st.text(alphabet="ab'é\u0301ﬁ ½\n\u00a0\x00\ufeff字。x1", max_size=24))
def test_words_stay_in_order_and_nothing_is_lost(text: str) -> None:
    for form in ("NFC", "NFKC"):
        clean = Cleaner(CleaningConfig(unicode=form)).clean_batch
        spanned = split(text)
        [cleaned] = clean([text])
        found = cleaned_places(spanned, cleaned, clean)

        assert len(found) == len(spanned.words)
        ends = [end for place in found for end in place]
        assert all(0 <= end <= len(cleaned) for end in ends)
        assert ends == sorted(ends)
        joined = "".join(cleaned[start:end] for start, end in found)
        assert "".join(joined.split()) == "".join(cleaned.split())


@pytest.mark.parametrize("kind", KINDS)
def test_words_without_tokens_are_left_out_and_numbered(kind: str) -> None:
    reader = TextAligner(Cleaner(CleaningConfig()), train_tokenizer(KINDS[kind], [TEXT] * 9))
    words = [(0, 1), (2, 4), (4, 7), (7, 9), (9, 13), (13, 14), (14, 15), (16, 20)]
    [found] = reader.read([SpannedText("I don't  know,\x00 José", words)])

    assert found.text == "I don't know, José"
    assert [word.spelling for word in found.words] == ["I", "do", "n't", "know", ",", "José"]
    assert found.numbers == (0, 1, 2, 4, 5, 7)
    for word, (first, last) in zip(found.words, zip(*found.word_spans(), strict=True), strict=True):
        assert found.tokens[first].start <= word.start
        assert found.tokens[last].end >= word.end
    if kind == "word":
        assert len(found.tokens) == 6
    else:
        assert found.tokens == reader.read([found.text])[0].tokens


def test_it_is_a_string_that_can_be_copied() -> None:
    text = SpannedText("a bc", [(0, 1), (2, 4)])
    assert text == "a bc"
    for one in (copy.copy(text), copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert (one, one.words, type(one)) == (text, text.words, SpannedText)


@pytest.mark.parametrize(
    "words", [[(0, 2), (1, 3)], [(2, 3), (0, 1)], [(3, 5)], [(2, 1)], [(-1, 2)]]
)
def test_places_that_are_not_in_the_text_are_refused(words: Any) -> None:
    with pytest.raises(UserError, match="give the words in order, each as"):
        SpannedText("abcd", words)
