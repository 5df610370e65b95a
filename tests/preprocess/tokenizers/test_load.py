"""All kinds of tokenizer: reproducible, lossless, and without control ids in encoded text."""

import json
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import CharConfig, SentencePieceConfig, TokenizerConfig, WordConfig
from preprocess.files.manifest import (
    FileRecord,
    Manifest,
    content_hash,
    hash_file,
    write_manifest,
)
from preprocess.files.verified import DamagedResult
from preprocess.tokenizers.base import CONTROLS, UNKNOWN, TokenizerError
from preprocess.tokenizers.load import Tokenizer, cached_tokenizer, load_tokenizer, train_tokenizer
from preprocess.tokenizers.subwords import SENTENCE_BYTES, SentencePieceTokenizer
from preprocess.tokenizers.vocabulary import Vocabulary
from preprocess.tokenizers.words import WordTokenizer

WORDS = ["the", "cat", "sat", "on", "mat", "größe", "слово", "猫が", "座った", "ราชการ", "<s>"]


def texts() -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=12)) for _ in range(200)]


def sentencepiece(
    model: Literal["unigram", "bpe"] = "unigram", vocabulary: int = 330
) -> SentencePieceConfig:
    return SentencePieceConfig(model=model, vocabulary=vocabulary)


KINDS = [sentencepiece(), sentencepiece("bpe"), CharConfig(), WordConfig()]


@pytest.fixture(scope="module", params=KINDS[:3], ids=["unigram", "bpe", "char"])
def subwords(request: pytest.FixtureRequest) -> Tokenizer:
    return train_tokenizer(request.param, texts())


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return train_tokenizer(WordConfig(), texts())


def spelt(tokenizer: Tokenizer, text: str) -> str:
    """Join the spellings of the ids of a text."""
    data = b""
    for token in tokenizer.encode([text])[0]:
        piece = tokenizer.spelling(int(token))
        is_byte = 3 <= token < 259
        data += bytes([int(piece[3:5], 16)]) if is_byte else piece.replace("▁", " ").encode()
    return data.decode().removeprefix(" ")


# SentencePiece spells a space as U+2581, which a text may contain, too.
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\u2581 \ufdd0\ue000"), max_size=60
)


@pytest.mark.parametrize("config", KINDS)
def test_the_same_texts_give_the_same_bytes(tmp_path: Path, config: TokenizerConfig) -> None:
    for folder in ("one", "two"):
        names = train_tokenizer(config, iter(texts())).save(str(tmp_path / folder))
        assert sorted(names) == sorted(path.name for path in (tmp_path / folder).iterdir())
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize("config", KINDS)
def test_a_loaded_tokenizer_equals_the_saved_one(tmp_path: Path, config: TokenizerConfig) -> None:
    made = train_tokenizer(config, texts())
    made.save(str(tmp_path))
    loaded = load_tokenizer(str(tmp_path))
    assert (loaded.kind, loaded.vocabulary) == (made.kind, made.vocabulary)
    assert cached_tokenizer(str(tmp_path), "content").vocabulary == made.vocabulary
    for token in range(made.vocabulary):
        assert loaded.spelling(token) == made.spelling(token)
    for a, b in zip(made.encode(texts()), loaded.encode(texts()), strict=True):
        np.testing.assert_array_equal(a, b)


def test_control_ids_come_first(subwords: Tokenizer, words: Tokenizer) -> None:
    for tokenizer in (subwords, words):
        assert (
            tuple(tokenizer.spelling(n) for n in range(3)) == CONTROLS == ("<unk>", "<s>", "</s>")
        )


def test_control_tokens_spelt_in_a_text_are_encoded_as_text(subwords: Tokenizer) -> None:
    for text in ("<s>", "</s>", "<unk>", "a <s>b</s> <unk>", "<0x41> <pad>"):
        ids = subwords.encode([text])[0]
        assert ids.min() > 2
        assert spelt(subwords, text) == text


@settings(deadline=None)
@given(text=TEXTS)
def test_the_spellings_of_its_ids_restore_any_text(subwords: Tokenizer, text: str) -> None:
    assert spelt(subwords, text) == text
    ids = subwords.encode([text])[0]
    assert subwords.decode(ids) == text
    assert ids.dtype == np.int32
    assert not len(ids) or ids.min() > 2


@settings(deadline=None)
@given(text=st.one_of(TEXTS, st.lists(st.sampled_from([*WORDS, "x", "  "])).map(" ".join)))
def test_tokens_have_the_ids_of_encode_and_rising_offsets(
    subwords: Tokenizer, words: Tokenizer, text: str
) -> None:
    for tokenizer in (subwords, words):
        tokens = tokenizer.tokens(text)
        assert [token.id for token in tokens] == tokenizer.encode([text])[0].tolist()
        place = 0
        for token in tokens:
            assert place <= token.start <= token.end <= len(text)
            place = token.end
    covered = subwords.tokens(text)
    assert not text or covered[-1].end == len(text)
    assert all(text[token.start : token.end] == token.spelling for token in words.tokens(text))


def test_encoding_a_batch_equals_encoding_each_text(subwords: Tokenizer, words: Tokenizer) -> None:
    batch = ["", "the cat", "", "猫が the", " "]
    for tokenizer in (subwords, words):
        for text, ids in zip(batch, tokenizer.encode(batch), strict=True):
            assert ids.dtype == np.int32
            np.testing.assert_array_equal(ids, tokenizer.encode([text])[0])
        assert tokenizer.encode([]) == []


def test_word_ids_follow_count_then_bytes() -> None:
    tokenizer = train_tokenizer(WordConfig(), ["b é b z", "z a", "<unk> z"])
    assert [tokenizer.spelling(n) for n in range(3, 8)] == ["z", "b", "<unk>", "a", "é"]
    assert tokenizer.vocabulary == 8
    # "<unk>" in a text is an ordinary word; words without an id get the unknown id.
    assert tokenizer.encode(["<unk> new z"])[0].tolist() == [5, UNKNOWN, 3]
    assert train_tokenizer(WordConfig(min_count=2), ["b a b z", "z"]).vocabulary == 5


def test_unicode_line_ends_separate_words_but_not_lines_of_the_vocabulary_file(
    tmp_path: Path,
) -> None:
    tokenizer = train_tokenizer(WordConfig(), ["a\u2028b\x85c\x0bd\x1ce f"])
    assert tokenizer.vocabulary == 9
    # str.split never leaves line ends in words, but the file must not depend on that.
    odd = ["a\u2028b", "c\x85", "\r", "d\x0be"]
    WordTokenizer(Vocabulary.of_words(odd)).save(str(tmp_path))
    loaded = load_tokenizer(str(tmp_path))
    assert [loaded.spelling(n) for n in range(3, loaded.vocabulary)] == odd


def test_texts_longer_than_the_trainer_accepts_are_split_and_used() -> None:
    spaced = " ".join(texts())
    assert len(spaced.encode()) > SENTENCE_BYTES
    tokenizer = train_tokenizer(sentencepiece("bpe", 400), [spaced])
    assert "▁the" in {tokenizer.spelling(n) for n in range(tokenizer.vocabulary)}
    unspaced = "猫座った" * SENTENCE_BYTES
    assert train_tokenizer(sentencepiece(), [unspaced]).encode(["猫"])[0].max() > 258


def test_a_long_text_is_split_between_words() -> None:
    long = " ".join(f"w{n:05d}" for n in range(5000))
    learnt = train_tokenizer(SentencePieceConfig(vocabulary=2000), [long])
    pieces = [learnt.spelling(n) for n in range(learnt.vocabulary)]
    assert {piece[1:2] for piece in pieces if piece.startswith("▁")} <= {"w", ""}


@pytest.mark.parametrize("nothing", [[], [""], ["  ", "\n"]])
def test_training_without_text_is_refused(nothing: list[str]) -> None:
    with pytest.raises(TokenizerError, match=r"^the train split has no text .* prepare\.filters$"):
        train_tokenizer(sentencepiece(), nothing)
    with pytest.raises(
        TokenizerError, match=r"^the train split has no word .* tokenizer\.min_count"
    ):
        train_tokenizer(WordConfig(), nothing)


def test_a_vocabulary_smaller_than_the_characters_is_refused(
    capfd: pytest.CaptureFixture[str],
) -> None:
    many = "".join(chr(0x4E00 + n) for n in range(1000))
    with pytest.raises(TokenizerError) as error:
        train_tokenizer(sentencepiece(vocabulary=300), [many])
    assert str(error.value).startswith(
        "SentencePiece cannot train 300 pieces on this text (Vocabulary size is smaller than"
    )
    assert str(error.value).endswith(
        "; raise tokenizer.vocabulary or lower tokenizer.character_coverage"
    )
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_small_corpus_gives_fewer_pieces_than_requested() -> None:
    assert train_tokenizer(sentencepiece(vocabulary=8000), ["one line"]).vocabulary < 300


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(TokenizerError, match=rf"^{folder}: holds no tokenizer \(.*biloom tok"):
            load_tokenizer(str(folder))
    for text in ("", "[1]", "{}", '{"kind": "word"}', '{"kind": "word", "file": "gone"}'):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(TokenizerError, match="holds no tokenizer"):
            load_tokenizer(str(tmp_path))


HOSTILE = [
    (b"[" * 60_000, r"tokenizer\.json is nested too deeply"),
    (b" " * (1 << 16) + b"{}", r"tokenizer\.json is larger than 65,536 bytes"),
    (b"\xff", "can't decode byte"),
    (b'{"kind": "char", "file": "../secret"}', r"its file is '\.\./secret', not tokenizer\.model"),
    (b'{"kind": "char", "file": "/etc/passwd"}', "its file is '/etc/passwd', not"),
    (b'{"kind": "char", "file": "s3://bucket/x"}', "its file is 's3://bucket/x', not"),
    (b'{"kind": "sentencepiece", "file": "a\\u0000b"}', "its file is "),
    (b'{"kind": "char", "file": ["tokenizer.model"]}', "its file is "),
    (b'{"kind": "char", "file": ""}', "its file is "),
    (b'{"kind": "char", "file": 3}', "its file is "),
    (b'{"kind": "char"}', r"holds no tokenizer \(no 'file'\)"),
    (b'{"kind": ["char"], "file": "tokenizer.model"}', r"kind \['char'\] needs a newer biloom"),
    (b'{"kind": "\\u001b[31m"}', r"kind '\\x1b\[31m' needs a newer biloom"),
    (
        b'{"kind": "char", "file": "tokenizer.model", "space_marks": "kept"}',
        "kind 'char' with space_marks 'kept' needs a newer biloom",
    ),
]


@pytest.mark.parametrize(("content", "told"), HOSTILE)
def test_a_hostile_kind_file_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    train_tokenizer(CharConfig(), ["a secret"]).save(str(tmp_path / "inner"))
    (tmp_path / "inner" / "tokenizer.model").rename(tmp_path / "secret")
    (tmp_path / "inner" / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=told):
        load_tokenizer(str(tmp_path / "inner"))


def test_a_tokenizer_of_an_earlier_version_keeps_its_ids(tmp_path: Path) -> None:
    made = train_tokenizer(CharConfig(), ["a b c"])
    made.save(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text('{"kind": "char", "file": "tokenizer.model"}')
    former = load_tokenizer(str(tmp_path))

    assert former.encode(["a\u2581b"])[0].tolist() == made.encode(["a b"])[0].tolist()
    assert former.encode(["a b"])[0].tolist() == made.encode(["a b"])[0].tolist()
    assert former.save(str(tmp_path / "again")) == ("tokenizer.json", "tokenizer.model")
    assert json.loads((tmp_path / "again" / "tokenizer.json").read_text()).keys() == {
        "kind",
        "file",
    }


def test_files_that_differ_from_the_manifest_are_refused(tmp_path: Path) -> None:
    for config in (CharConfig(), WordConfig()):
        folder = tmp_path / config.kind
        names = train_tokenizer(config, ["a b c"]).save(str(folder))
        files = tuple(FileRecord(name, *hash_file(f"{folder}/{name}")) for name in names)
        write_manifest(
            str(folder), Manifest("tokenizer", 2, "0.4", "", content_hash(files), {}, files, {})
        )
        load_tokenizer(str(folder))
        for name in names:
            data = (folder / name).read_bytes()
            (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            # A clock of the file system may not have moved on since.
            os.utime(folder / name, (1, 1))
            with pytest.raises(DamagedResult, match=rf"{name} is damaged \(hash"):
                load_tokenizer(str(folder))
            (folder / name).write_bytes(data)


def hit(data: bytes, changes: list[tuple[float, int]], size: float) -> bytes:
    """Return the first part of some bytes, changed at places from 0 to 1."""
    changed = bytearray(data[: int(size * len(data))])
    for place, value in changes:
        if changed:
            changed[int(place * len(changed))] = value
    return bytes(changed)


CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6)
SIZE = st.just(1.0) | st.floats(0, 1)


def use(folder: Path) -> None:
    """Use everything that a tokenizer does, or get a message."""
    with suppress(TokenizerError):
        tokenizer = load_tokenizer(str(folder))
        for text in ("the größe \u2581猫が", ""):
            ids = tokenizer.encode([text])[0]
            tokenizer.decode(ids)
            tokenizer.tokens(text)
            tokenizer.byte_tokens(ids)
        for token in range(min(tokenizer.vocabulary, 500)):
            tokenizer.spelling(token)
        tokenizer.longest(5)


@settings(deadline=None, max_examples=60)
@given(changes=CHANGES, size=SIZE)
def test_a_changed_sentencepiece_model_is_used_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    subwords: Tokenizer,
    changes: list[tuple[float, int]],
    size: float,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "changed-model"
    subwords.save(str(folder))
    path = folder / "tokenizer.model"
    path.write_bytes(hit(path.read_bytes(), changes, size))
    use(folder)


@settings(deadline=None, max_examples=60)
@given(changes=CHANGES, size=SIZE, name=st.sampled_from(["vocabulary.txt", "vocabulary.index"]))
def test_a_changed_vocabulary_is_used_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    words: Tokenizer,
    changes: list[tuple[float, int]],
    size: float,
    name: str,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "changed-words"
    words.save(str(folder))
    (folder / name).write_bytes(hit((folder / name).read_bytes(), changes, size))
    use(folder)


def test_a_damaged_model_is_refused(tmp_path: Path, subwords: Tokenizer) -> None:
    assert isinstance(subwords, SentencePieceTokenizer)
    subwords.save(str(tmp_path))
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        load_tokenizer(str(tmp_path))


def test_an_unknown_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"kind": "morpheme"}))
    with pytest.raises(TokenizerError) as error:
        load_tokenizer(str(tmp_path))
    assert str(error.value) == f"{tmp_path}: tokenizer kind 'morpheme' needs a newer biloom"
