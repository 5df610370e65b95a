"""Tokenising strings and lists of words, and aligning tokens with words."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import CharConfig, SentencePieceConfig, WordConfig
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.aligned_text import NO_ID, TextAligner, Tokenised
from preprocess.tokenizers.base import UNKNOWN, Token
from preprocess.tokenizers.huggingface.tokenizer import HuggingFaceTokenizer
from preprocess.tokenizers.load import Tokenizer, train_tokenizer
from tests.tokenizer_files import MAKERS, tokenizer_file

TEXTS = [
    "The cat sat on the mat .",
    "A dog ran to the cat , twice .",
    "字 tout été naïve",
    "zz top",
]
KINDS: dict[str, Any] = {
    "word": WordConfig(),
    "char": CharConfig(),
    "bytes": SentencePieceConfig(vocabulary=320),
}


@pytest.fixture(scope="module", params=KINDS)
def reader(request: pytest.FixtureRequest) -> TextAligner:
    return TextAligner(Cleaner(CleaningConfig()), tokenizer(request.param))


def tokenizer(kind: str) -> Tokenizer:
    return train_tokenizer(KINDS[kind], TEXTS * 20)


def covered(found: Tokenised) -> None:
    """Check that the tokens of every word cover all of its characters, and other tokens none."""
    first, last = found.word_spans()
    for word, start, end in zip(found.words, first, last, strict=True):
        assert 0 <= start <= end < len(found.tokens)
        assert found.text[word.start : word.end] == word.spelling
        tokens = found.tokens[start : end + 1]
        assert tokens[0].start <= word.start
        assert tokens[-1].end >= word.end
        others = [*found.tokens[:start], *found.tokens[end + 1 :]]
        assert not any(max(one.start, word.start) < min(one.end, word.end) for one in others), (
            "another token overlaps the word"
        )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=6), max_size=8))
def test_every_word_of_a_list_keeps_its_own_tokens(reader: TextAligner, words: list[str]) -> None:
    [found] = reader.read([words])

    assert len(found.words) == len(words)
    covered(found)


@pytest.fixture(scope="module", params=MAKERS)
def given_reader(request: pytest.FixtureRequest) -> TextAligner:
    """Reader with a tokenizer.json."""
    file = HuggingFaceTokenizer(tokenizer_file(request.param))
    return TextAligner(Cleaner(CleaningConfig(unicode="none", whitespace="keep")), file)


PARTS = [
    "the ",
    "cat",
    "größe",
    "猫が",
    " ",
    "  ",
    "\n",
    "\u200d",
    "İ",
    "ﬁ",
    "①",
    "<s>",
    "𒀀",
    "a\u0301",
]
SPELT = st.one_of(st.lists(st.sampled_from(PARTS)).map("".join), st.text(max_size=8))


@settings(deadline=None, max_examples=60)
@given(text=SPELT, words=st.lists(SPELT, max_size=8))
def test_a_word_has_the_tokens_of_a_file_that_cover_its_characters(
    given_reader: TextAligner, text: str, words: list[str]
) -> None:
    for found in given_reader.read([text, words, text.split()]):
        first, last = found.word_spans()
        for word, start, end in zip(found.words, first.tolist(), last.tolist(), strict=True):
            overlapping = {
                number
                for number, token in enumerate(found.tokens)
                if max(token.start, word.start) < min(token.end, word.end)
            }
            own = {*range(start, end + 1)}
            assert own
            assert overlapping <= own
            others = own - overlapping
            assert all(found.tokens[n].start == found.tokens[n].end for n in others) or (
                word.start == word.end
            )
    assert len(given_reader.read([words])[0].words) == len(words)


def test_bytes_of_a_character_and_trimmed_spaces_belong_to_their_words() -> None:
    def spans(name: str, words: list[str]) -> list[list[str]]:
        reader = TextAligner(Cleaner(CleaningConfig()), HuggingFaceTokenizer(tokenizer_file(name)))
        [found] = reader.read([words])
        first, last = found.word_spans()
        rows = zip(first.tolist(), last.tolist(), strict=True)
        return [[token.spelling for token in found.tokens[a : b + 1]] for a, b in rows]

    dog = ["<0xE7>", "<0x8A>", "<0xAC>"]
    assert spans("gpt2", ["cat", "犬犬", "cat"]) == [["cat"], [*dog, *dog], ["▁cat"]]
    assert spans("llama", ["cat", "犬", "cat"]) == [["▁cat"], dog, ["▁cat"]]
    # The space before the second word has the offsets [4, 4), the bytes of the word [4, 5).
    assert spans("roberta", ["cat", "犬", "cat"]) == [["▁cat"], ["▁", *dog], ["▁cat"]]
    # "\u200d" has no token in BERT's files, so it gets the unknown one.
    assert spans("bert", ["the", "\u200d", "cat"]) == [["▁the"], ["\u200d"], ["▁cat"]]


def test_a_trimmed_space_behind_the_start_of_the_next_token_is_moved() -> None:
    spans = [(0, 1), (1, 2), (3, 3), (2, 3), (3, 4)]
    tokens = tuple(Token(9, "x", start, end) for start, end in spans)
    word = Token(NO_ID, "x", 3, 4)
    first, last = Tokenised("xxxx", tokens, (word,)).word_spans()
    assert (first.tolist(), last.tolist()) == ([4], [4])


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=40))
def test_words_of_a_string_are_separated_by_whitespace(reader: TextAligner, text: str) -> None:
    [found] = reader.read([text])

    assert [word.spelling for word in found.words] == found.text.split()
    assert {word.id for word in found.words} <= {NO_ID}
    covered(found)


def test_a_list_of_words_has_the_tokens_of_its_joined_text(reader: TextAligner) -> None:
    text, words = reader.read([TEXTS[0], TEXTS[0].split()])

    assert words.tokens == text.tokens
    assert words.text == text.text


def test_a_word_tokenizer_makes_one_token_of_each_word_of_a_list() -> None:
    reader = TextAligner(Cleaner(CleaningConfig(whitespace="keep")), tokenizer("word"))
    words = ["The", "big cat", "", "cat", "\x00", "The"]

    [found] = reader.read([words])

    assert [token.spelling for token in found.tokens] == ["The", "big cat", "", "cat", "", "The"]
    known = found.tokens[0].id, found.tokens[3].id
    assert UNKNOWN not in known
    assert [token.id for token in found.tokens[1:3]] == [UNKNOWN] * 2
    first, last = found.word_spans()
    assert first.tolist() == last.tolist() == list(range(6))


def test_a_word_that_cleaning_empties_becomes_the_unknown_token() -> None:
    reader = TextAligner(Cleaner(CleaningConfig()), tokenizer("bytes"))

    [found] = reader.read([["the", "\x07", "cat"]])

    first, last = found.word_spans()
    assert [found.tokens[n].id == UNKNOWN for n in first] == [False, True, False]
    assert first[1] == last[1]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (3, "int"),
        (None, "NoneType; drop missing texts, or write '' for them"),
        (float("nan"), "float; drop missing texts, or write '' for them"),
        (b"a", "bytes"),
        (["a", 3], "a list that holds int"),
        ([b"a"], "a list that holds bytes"),
        ((["a"],), "a tuple that holds list"),
        (np.array(["a"]), "ndarray"),
        (iter(["a"]), "list_iterator"),
        ({"a"}, "set"),
    ],
)
def test_other_types_than_texts_are_refused(wrong: Any, found: str) -> None:
    reader = TextAligner(Cleaner(CleaningConfig()), tokenizer("word"))
    with pytest.raises(
        TypeError,
        match=rf"a text must be a string or a list of strings \(its words\), but the one with the index "
        rf"1 is {found}$",
    ):
        reader.read(["a", wrong])


class DataFrame:
    """A data frame is iterated over by the names of its columns."""

    columns = ("text",)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("a b", r"not str; write \[text\] for a single text"),
        (b"a b", r"not bytes; write \[text\]"),
        (
            {"a": "b"},
            "not dict, which is not a sequence of texts; pass a list, a column or a generator",
        ),
        ({"a", "b"}, "not set, which is not a sequence of texts"),
        (DataFrame(), r"not DataFrame; pass the column of the texts, as in frame\['text'\]"),
        (np.array("a b"), "not ndarray$"),
        (None, "not NoneType$"),
        (7, "not int$"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(wrong: Any, message: str) -> None:
    reader = TextAligner(Cleaner(CleaningConfig()), tokenizer("word"))
    with pytest.raises(TypeError, match=f"texts must be a list of texts, {message}"):
        reader.read(wrong)


def test_any_iterable_of_strings_is_read(reader: TextAligner) -> None:
    expected = reader.read(TEXTS)

    for texts in (tuple(TEXTS), iter(TEXTS), np.array(TEXTS), map(np.str_, TEXTS)):
        assert reader.read(texts) == expected
    assert reader.read(()) == []
    assert reader.read([[]])[0].tokens == ()


@pytest.mark.parametrize("text", ["我在银行 存钱 here", "。银 行", ""])
def test_a_segmenter_finds_words_by_their_offsets(reader: TextAligner, text: str) -> None:
    [found] = reader.read([text], "jieba")

    assert found.text == text
    assert [word.spelling for word in found.words] == {
        "我在银行 存钱 here": ["我", "在", "银行", "存钱", "here"],
        "。银 行": ["。", "银", "行"],
        "": [],
    }[text]
    assert not found.lacks_spaces
    covered_words = [found.text[word.start : word.end] for word in found.words]
    assert covered_words == [word.spelling for word in found.words]


def test_only_a_word_tokenizer_reads_the_words_of_a_segmenter() -> None:
    cleaner = Cleaner(CleaningConfig())
    segmented = train_tokenizer(WordConfig(), ["我 在 银行 存钱"] * 3)
    [found] = TextAligner(cleaner, segmented).read(["我在 银行去"], "jieba")
    known = [segmented.encode([word])[0].item() for word in ("我", "在", "银行")]
    assert [token.id for token in found.tokens] == [*known, UNKNOWN]
    assert [(token.start, token.end) for token in found.tokens] == [(0, 1), (1, 2), (3, 5), (5, 6)]
    assert found.word_spans()[0].tolist() == [0, 1, 2, 3]

    characters = train_tokenizer(CharConfig(), ["我在银行存钱"] * 3)
    reader = TextAligner(cleaner, characters)
    [plain], [cut] = reader.read(["我在银行"]), reader.read(["我在银行"], "jieba")
    assert plain.tokens == cut.tokens


def test_a_list_of_words_is_not_segmented(reader: TextAligner) -> None:
    assert reader.read([["我在银行", "存钱"]], "jieba") == reader.read([["我在银行", "存钱"]])


def test_missing_spaces_are_told_once() -> None:
    reader = TextAligner(Cleaner(CleaningConfig()), tokenizer("char"))
    found = reader.read(["我在银行存钱", "a b", ["我在银行存钱"]])
    assert [one.lacks_spaces for one in found] == [True, False, False]
    reader.warn_of_no_spaces([False, False])
    with pytest.warns(UserWarning, match="unit='word'") as told:
        reader.warn_of_no_spaces([one.lacks_spaces for one in found])
    reader.warn_of_no_spaces([True])  # a second warning would be an error
    assert str(told[0].message) == (
        "unit='word': 1 of 3 texts have no spaces between words, so a word is a whole sentence; name a "
        "segmenter (jieba, fugashi, pythainlp), or pass each text as a list of words"
    )
