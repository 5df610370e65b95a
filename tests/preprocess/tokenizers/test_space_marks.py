"""U+2581 in texts: encoded as its bytes, at its place, and decoded again."""

import io
from typing import Literal

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import CharConfig, SentencePieceConfig
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.aligned_text import TextAligner
from preprocess.tokenizers.base import TokenizerError
from preprocess.tokenizers.subwords import SentencePieceTokenizer, train_sentencepiece

LINES = ["the cat sat", "a\u2581b \u2581 c", "\ufdd0 is trained on", "x y z"] * 20
BYTES = ["<0xE2>", "<0x96>", "<0x81>"]


@pytest.fixture(scope="module", params=["char", "unigram", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> SentencePieceTokenizer:
    kind: Literal["char", "unigram", "bpe"] = request.param
    if kind == "char":
        return train_sentencepiece(CharConfig(), LINES)
    return train_sentencepiece(SentencePieceConfig(model=kind, vocabulary=330), LINES)


def test_it_has_the_ids_and_offsets_of_its_bytes(tokenizer: SentencePieceTokenizer) -> None:
    found = tokenizer.tokens("x \u2581y")

    at = next(n for n, token in enumerate(found) if token.spelling == BYTES[0])
    assert [token.spelling for token in found[at : at + 3]] == BYTES
    assert [(token.start, token.end) for token in found[at : at + 3]] == [(2, 2), (2, 2), (2, 3)]
    assert (found[0].start, found[-1].end) == (0, 4)
    ids = tokenizer.encode(["x \u2581y"])[0]
    assert [token.id for token in found] == ids.tolist()
    assert tokenizer.byte_tokens(ids) == 3
    assert tokenizer.decode(ids) == "x \u2581y"


@settings(deadline=None)
@given(text=st.text(alphabet="\u2581 \ufdd0\ufdd1\u2580ab猫", max_size=30))
def test_it_is_not_mistaken_for_a_space_or_its_stand_in(
    tokenizer: SentencePieceTokenizer, text: str
) -> None:
    ids = tokenizer.encode([text])[0]
    assert tokenizer.decode(ids) == text
    assert tokenizer.restores(text)
    assert [token.id for token in tokenizer.tokens(text)] == ids.tolist()
    own = sentencepiece.SentencePieceProcessor(model_proto=tokenizer._model)
    if "\u2581" not in text:
        assert ids.tolist() == own.encode(text)


def test_a_word_that_contains_it_keeps_its_tokens(tokenizer: SentencePieceTokenizer) -> None:
    aligner = TextAligner(Cleaner(CleaningConfig()), tokenizer)
    [text] = aligner.read([["a", "\u2581", "b\u2581"]])
    firsts, lasts = text.word_spans()
    spelt = [
        [token.spelling for token in text.tokens[first : last + 1]]
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
    ]
    assert spelt[1][-3:] == spelt[2][-3:] == BYTES


def test_a_model_without_byte_pieces_is_refused() -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=40, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    with pytest.raises(TokenizerError, match=r"the model has no byte pieces, which U\+2581 needs"):
        SentencePieceTokenizer(model.getvalue(), keeps_marks=True)
