"""Tokenizers as a tokenizer.json: the library tokenizers gives the same ids for every cleaned text."""

import io
import json
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from preprocess.config import CharConfig, SentencePieceConfig
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.huggingface.conversion import Converted, converted
from preprocess.tokenizers.huggingface.tokenizer import HuggingFaceTokenizer
from preprocess.tokenizers.load import Tokenizer
from preprocess.tokenizers.subwords import SentencePieceTokenizer, train_sentencepiece
from preprocess.tokenizers.vocabulary import Vocabulary
from preprocess.tokenizers.words import WordTokenizer
from tests.tokenizer_files import MAKERS, tokenizer_file

LINES = [
    "the cat sat on the mat, and the dog",
    "größe слово猫 座った",
    "a b c d e f g k n u 0 1 4",
] * 20
ODD = [
    *["<s>", "</s>", "<unk>", "<unk> ", "<0x41>", "<0x0A><0xFF>", "x<0xE2>", "\u2581", "a\u2581b"],
    *["𒀀", "ꙮ", "ngrößße", "\x1c", "\x85", "\u3000", "\ufeff", "\u200b", " ", "e\u0301", "\0<s>"],
]
TEXT = st.one_of(
    st.lists(st.sampled_from([*ODD, "the ", "cat", "größe", " mat,"])).map("".join),
    st.text(max_size=20),
)


def learn(**changes: Any) -> SentencePieceTokenizer:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, num_threads=1, hard_vocab_limit=False,
        minloglevel=2, **{"vocab_size": 340, **changes},
    )  # fmt: skip
    return SentencePieceTokenizer(model.getvalue())


PLAIN: dict[str, Any] = {
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}
MODELS = {
    "unigram": lambda: train_sentencepiece(SentencePieceConfig(vocabulary=340), LINES),
    "unigram with <": lambda: train_sentencepiece(
        SentencePieceConfig(vocabulary=340), [*LINES, "a < b < c <x"]
    ),
    "bpe": lambda: train_sentencepiece(SentencePieceConfig(model="bpe", vocabulary=340), LINES),
    "char": lambda: train_sentencepiece(CharConfig(), LINES),
    "word": lambda: WordTokenizer(Vocabulary.of_words(["the", "cat", "sat", "größe", "<b>"])),
    "word <unk>": lambda: WordTokenizer(Vocabulary.of_words(["the", "<unk>", "<s>", "𒀀"])),
    "no words": lambda: WordTokenizer(Vocabulary.of_words([])),
    "version 0.1": lambda: learn(byte_fallback=True, pad_id=-1, unk_id=0, **PLAIN),
    "llama": lambda: learn(model_type="bpe", byte_fallback=True, **PLAIN),
    "no bytes": lambda: learn(vocab_size=80, **PLAIN),
    "no bytes, bpe": lambda: learn(vocab_size=80, model_type="bpe", **PLAIN),
    "other order": lambda: learn(pad_id=0, eos_id=1, unk_id=2, bos_id=-1, vocab_size=80, **PLAIN),
    **{name: lambda name=name: HuggingFaceTokenizer(tokenizer_file(name)) for name in MAKERS},
}


@pytest.fixture(scope="module", params=MODELS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    made: Tokenizer = MODELS[request.param]()
    return made


@pytest.fixture(scope="module")
def made(tokenizer: Tokenizer) -> Converted:
    return converted(tokenizer)


@pytest.fixture(scope="module")
def library(made: Converted) -> Any:
    return Library.from_buffer(made.file)


@given(text=TEXT)
@settings(max_examples=60, deadline=None)
def test_every_cleaned_text_has_the_same_ids(
    tokenizer: Tokenizer, made: Converted, library: Any, text: str
) -> None:
    [text] = Cleaner(CleaningConfig()).clean_batch([text])
    found = library.encode(text).ids
    assert [made.moved_ids.get(n, n) for n in found] == tokenizer.encode([text])[0].tolist()


def test_the_file_is_the_same_every_time(tokenizer: Tokenizer, made: Converted) -> None:
    assert converted(tokenizer).file == made.file
    assert json.loads(made.file)["post_processor"] is None
    assert made.reason == ""


UNCONVERTIBLE = {
    "normaliser": ({"byte_fallback": True}, "its SentencePiece model has a normaliser of its own"),
    "no space first": (
        {**PLAIN, "add_dummy_prefix": False},
        "its SentencePiece model has a normaliser of its own",
    ),
    "space last": (
        {**PLAIN, "treat_whitespace_as_suffix": True, "model_type": "bpe"},
        "its SentencePiece model has a normaliser of its own",
    ),
    "words": (
        {**PLAIN, "model_type": "word", "vocab_size": 12},
        "it is a SentencePiece model of words",
    ),
    "user defined": (
        {**PLAIN, "user_defined_symbols": ["<mask>"]},
        "it has user-defined or unused pieces",
    ),
}


@pytest.mark.parametrize("name", UNCONVERTIBLE)
def test_a_model_with_other_rules_is_not_converted(name: str) -> None:
    changes, reason = UNCONVERTIBLE[name]
    assert converted(learn(**changes)) == Converted("", b"", {}, reason)
