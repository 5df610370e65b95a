"""SentencePiece models: control ids of existing models, and errors while training."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import CharConfig, SentencePieceConfig
from preprocess.errors import UserError
from preprocess.tokenizers.base import CONTROLS, TokenizerError
from preprocess.tokenizers.load import load_tokenizer
from preprocess.tokenizers.subwords import (
    SentencePieceTokenizer,
    read_sentencepiece,
    train_sentencepiece,
)

LINES = ["the cat sat on the mat", "größe слово猫 座った", "a b c d e f g s k n u < > /"] * 20
ODD = ["<s>", "</s>", "<unk>", "<UNK>", "<pad>", "a <s>b</s> <unk> <mask>", "", " ", "x\u2581y"]

MODELS: dict[str, dict[str, Any]] = {
    "llama": {"byte_fallback": True},
    "t5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "no ends": {"bos_id": -1, "eos_id": -1},
    "user defined": {"user_defined_symbols": ["<s>", "</s>", "<mask>"], "byte_fallback": True},
    "ends in the text": {"bos_id": -1, "eos_id": -1, "user_defined_symbols": ["<s>", "</s>"]},
    "all over": {
        **{"unk_id": 5, "bos_id": 0, "eos_id": 3, "pad_id": 1, "unk_piece": "<UNK>"},
        **{"user_defined_symbols": ["<unk>"], "control_symbols": ["<cls>"]},
    },
    "bpe": {"model_type": "bpe"},
    "words": {"model_type": "word", "vocab_size": 12},
    "characters": {"model_type": "char"},
    "no space first": {"add_dummy_prefix": False, "byte_fallback": True},
    "space last": {"treat_whitespace_as_suffix": True, "model_type": "bpe"},
    "lower case": {"normalization_rule_name": "nmt_nfkc_cf", "byte_fallback": True},
    "spaces kept": {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
}


def learn(**settings_: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, num_threads=1, hard_vocab_limit=False,
        minloglevel=2, **{"vocab_size": 360, **settings_},
    )  # fmt: skip
    return model.getvalue()


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> bytes:
    return learn(**MODELS[request.param])


TEXT = st.one_of(
    st.lists(st.sampled_from([*ODD, "the", "cat", "größe"])).map(" ".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


@settings(deadline=None, max_examples=40)
@given(TEXT)
def test_an_existing_model_encodes_as_before_and_gives_no_control_ids(
    model: bytes, text: str
) -> None:
    tokenizer = SentencePieceTokenizer(model)
    own = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert [tokenizer.spelling(n) for n in range(3)] == list(CONTROLS)
    ids = tokenizer.encode([text])[0].tolist()
    assert 1 not in ids
    assert 2 not in ids
    unknown = own.unk_id()
    theirs = own.encode(text)
    assert [token == 0 for token in ids] == [token == unknown for token in theirs]
    spelt = [tokenizer.spelling(token) for token in ids if token]
    assert spelt == [own.id_to_piece(token) for token in theirs if token != unknown]
    tokens = tokenizer.tokens(text)
    assert [token.id for token in tokens] == ids
    offsets = own.encode(text, return_type="offset_mapping")["offsets"]
    assert [(token.start, token.end) for token in tokens] == offsets
    starts, ends = zip(*offsets, strict=True) if offsets else ((), ())
    assert [*starts, *ends] == [*sorted(starts), *sorted(ends)]
    assert all(0 <= token.start <= token.end <= len(text) for token in tokens)
    assert tokenizer.decode(tokenizer.encode([text])[0]) == own.decode(theirs)


def test_every_piece_of_an_existing_model_has_one_id(model: bytes) -> None:
    tokenizer = SentencePieceTokenizer(model)
    own = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [own.id_to_piece(n) for n in range(own.get_piece_size())]
    spellings = [tokenizer.spelling(n) for n in range(3, tokenizer.vocabulary)]
    assert len(set(spellings)) == len(spellings)
    assert spellings == [piece for piece in pieces if piece in set(spellings)], (
        "in the order of the model"
    )
    ends = {pieces[n] for n in (own.bos_id(), own.eos_id()) if n >= 0}
    assert set(pieces) - set(spellings) == {*ends, own.id_to_piece(own.unk_id())}


def test_an_existing_model_is_saved_byte_for_byte(model: bytes, tmp_path: Path) -> None:
    path = tmp_path / "given.model"
    path.write_bytes(model)
    given_ = read_sentencepiece(str(path))
    given_.save(str(tmp_path / "folder"))
    assert (tmp_path / "folder" / "tokenizer.model").read_bytes() == model
    loaded = load_tokenizer(str(tmp_path / "folder"))
    assert loaded.encode(ODD)[5].tolist() == given_.encode(ODD)[5].tolist()


def test_byte_tokens_and_lossy_normalisation_are_detected() -> None:
    lossy = SentencePieceTokenizer(learn())
    assert not lossy.has_bytes
    assert lossy.byte_tokens(lossy.encode(["犬 the"])[0]) == 0
    assert not lossy.restores("the ﬁ"), "nmt_nfkc"
    assert not lossy.restores("the  cat")
    assert lossy.restores("the cat")
    exact = train_sentencepiece(SentencePieceConfig(vocabulary=400), LINES)
    assert exact.has_bytes
    assert exact.byte_tokens(exact.encode(["the 犬"])[0]) == 3
    assert all(exact.restores(text) for text in ("the  cat ", "ﬁ", "<s>", "犬"))


def test_longest_leaves_out_bytes_and_control_tokens() -> None:
    tokenizer = train_sentencepiece(SentencePieceConfig(vocabulary=400), LINES)
    longest = tokenizer.longest(5)
    assert longest == sorted(longest, key=lambda piece: (-len(piece), piece))
    assert not {"<unk>", "</s>", "<0x00>"} & set(tokenizer.longest(1000))
    assert {"at", "a"} <= set(tokenizer.longest(1000))


@pytest.mark.parametrize("data", [b"", b"not a model"])
def test_a_file_that_is_not_a_model_is_refused(
    tmp_path: Path, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "some.model"
    path.write_bytes(data)
    with pytest.raises(TokenizerError) as error:
        read_sentencepiece(str(path))
    assert str(error.value).startswith(f"tokenizer.file: {path}: not a SentencePiece model (")
    assert str(error.value).endswith("; name the .model file that SentencePiece wrote")
    assert capfd.readouterr() == ("", "")


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    whole = learn(**MODELS["spaces kept"])
    path = tmp_path / "some.model"
    path.write_bytes(whole)
    read_sentencepiece(str(path))
    told = []
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(TokenizerError) as error:
            read_sentencepiece(str(path))
        told.append(str(error.value))
    # SentencePiece loads those that end between two pieces.
    assert told.count(
        f"tokenizer.file: {path}: it has no normaliser, so it is truncated; copy it again; name the "
        ".model file that SentencePiece wrote"
    ) > 5  # fmt: skip


def test_a_model_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError) as error:
        read_sentencepiece(f"{tmp_path}/none.model")
    assert str(error.value) == (
        f"tokenizer.file: {tmp_path}/none.model: cannot be read (No such file or directory)"
    )


def test_a_char_model_has_single_characters_and_bytes_for_rare_ones() -> None:
    config = CharConfig(character_coverage=0.99)
    tokenizer = train_sentencepiece(config, ["abcde " * 200 + "猫"])
    assert tokenizer.kind == "char"
    spellings = {tokenizer.spelling(n) for n in range(259, tokenizer.vocabulary)}
    assert spellings == {"\u2581", *"abcde"}
    assert [token.spelling for token in tokenizer.tokens("ab猫")] == [
        *("\u2581", "a", "b"),
        *("<0xE7>", "<0x8C>", "<0xAB>"),
    ]


def test_an_error_while_reading_texts_is_raised_unchanged() -> None:
    def texts() -> Iterator[str]:
        yield "the cat"
        raise UserError("corpus.gz: damaged")

    for config in (SentencePieceConfig(), CharConfig()):
        with pytest.raises(UserError, match=r"^corpus.gz: damaged$"):
            train_sentencepiece(config, texts())
