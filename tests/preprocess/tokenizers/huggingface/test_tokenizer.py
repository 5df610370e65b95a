"""A tokenizer.json: ids and offsets of the library tokenizers, and files that are refused."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from preprocess.config import SentencePieceConfig
from preprocess.tokenizers.base import CONTROLS, UNKNOWN, TokenizerError
from preprocess.tokenizers.huggingface.tokenizer import (
    MOST_IDS,
    HuggingFaceTokenizer,
    read_huggingface,
)
from preprocess.tokenizers.load import load_tokenizer
from preprocess.tokenizers.subwords import read_sentencepiece, train_sentencepiece
from tests.tokenizer_files import LINES, MAKERS, tokenizer_file

ODD = (
    *["<s>", "</s>", "<|endoftext|>", "[MASK]", "[UNK]", "New York", "slowly", "▁", "Ġ", "##a"],
    *["İ", "ﬁ", "e\u0301", "a\u0327\u0301", "\u1100\u1161", "①", "½", "ﷺ", "👩‍👩‍👧", "🏳️‍🌈", "𒀀"],
    *["\u200d", "\ufeff", "\u3000", "\x00", "\n", "\t", " ", "  ", "猫", "が", "नि", "ำ", "\u2028"],
)
TEXT = st.one_of(
    st.lists(st.sampled_from([*ODD, "the ", "cat", "größe", "player"])).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


@pytest.fixture(scope="module", params=MAKERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(name: str) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(tokenizer_file(name))


@pytest.fixture(scope="module")
def library(name: str) -> Any:
    return Tokenizer.from_buffer(tokenizer_file(name))


@settings(deadline=None, max_examples=60)
@given(text=TEXT)
def test_ids_and_offsets_are_those_of_the_library(
    made: HuggingFaceTokenizer, library: Any, text: str
) -> None:
    expected = library.encode(text, add_special_tokens=False)
    [ids] = made.encode([text])
    assert ids.dtype == np.int32
    assert made.file_ids(ids).tolist() == expected.ids
    assert not {1, 2} & set(ids.tolist())
    # All but the first three ids of the file, and the unknown token, keep their numbers.
    kept = [ours for ours, theirs in zip(ids.tolist(), expected.ids, strict=True) if theirs > 2]
    assert [n for n in kept if n] == [
        n for n in expected.ids if n > 2 and n != made.file_ids(np.array(UNKNOWN))
    ]
    tokens = made.tokens(text)
    assert [token.id for token in tokens] == ids.tolist()
    assert [(token.start, token.end) for token in tokens] == expected.offsets
    assert made.decode(ids) == library.decode(expected.ids, skip_special_tokens=False)


def test_a_batch_equals_its_texts(made: HuggingFaceTokenizer) -> None:
    batch = ["", *LINES, "", *ODD]
    rows = made.encode(batch)
    assert [row.tolist() for row in rows] == [made.encode([text])[0].tolist() for text in batch]
    assert made.encode([]) == []


def test_every_token_of_the_file_has_one_id(made: HuggingFaceTokenizer, library: Any) -> None:
    theirs = made.file_ids(np.arange(made.vocabulary))
    assert set(theirs.tolist()) - {-1} == set(library.get_vocab().values())
    assert [made.spelling(n) for n in range(3)] == list(CONTROLS)
    used = [n for n in theirs[3:].tolist() if n != theirs[UNKNOWN]]
    assert len(set(used)) == len(used)


def test_a_saved_file_is_unchanged(made: HuggingFaceTokenizer, name: str, tmp_path: Path) -> None:
    assert made.save(str(tmp_path)) == ("tokenizer.json", "huggingface.json")
    assert (tmp_path / "huggingface.json").read_bytes() == tokenizer_file(name)
    loaded = load_tokenizer(str(tmp_path))
    assert (loaded.kind, loaded.vocabulary) == ("huggingface", made.vocabulary)
    assert loaded.encode(LINES)[1].tolist() == made.encode(LINES)[1].tolist()


def test_a_tokenizer_can_be_pickled(made: HuggingFaceTokenizer) -> None:
    again = pickle.loads(pickle.dumps(made))
    assert again.tokens(LINES[1]) == made.tokens(LINES[1])


def changed(name: str, **settings_: Any) -> bytes:
    return json.dumps({**json.loads(tokenizer_file(name)), **settings_}).encode()


def test_truncation_padding_and_special_tokens_of_the_file_have_no_effect() -> None:
    library = Tokenizer.from_buffer(tokenizer_file("bert"))
    library.enable_truncation(3)
    library.enable_padding(length=8)
    text = "the cat sat on the mat"
    assert len(library.encode(text).ids) == 8
    limited = HuggingFaceTokenizer(library.to_str().encode())
    [ids] = limited.encode([text])
    assert ids.tolist() == HuggingFaceTokenizer(tokenizer_file("bert")).encode([text])[0].tolist()
    assert [token.spelling for token in limited.tokens(text)][::5] == ["▁the", "▁mat"]


def test_spellings_have_the_form_of_all_subwords() -> None:
    def spelt(name: str, text: str) -> list[str]:
        return [t.spelling for t in HuggingFaceTokenizer(tokenizer_file(name)).tokens(text)]

    assert spelt("gpt2", "the cat犬") == ["the", "▁cat", "<0xE7>", "<0x8A>", "<0xAC>"]
    assert spelt("gpt2", "▁é") == ["<0xE2>", "<0x96>", "<0x81>", "<0xC3>", "<0xA9>"]
    assert spelt("llama", "the cat犬") == ["▁the", "▁cat", "<0xE7>", "<0x8A>", "<0xAC>"]
    assert spelt("bert", "Playing 犬 <s>") == ["▁play", "i", "n", "g", "▁犬", "▁<", "▁s", "▁>"]
    assert spelt("words", "the 犬 cat[MASK] New York") == [
        *["the", "犬", "cat", "[MASK]", "New York"]
    ]


def test_an_id_that_the_file_leaves_out_has_a_spelling() -> None:
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 5}, "unk_token": "a"}
    sparse = HuggingFaceTokenizer(changed("words", model=model, added_tokens=[]))
    assert sparse.vocabulary == 6
    assert sparse.spelling(4) == "<unused4>"
    assert sparse.longest(9) == ["b"]


def test_byte_tokens_are_counted() -> None:
    for name, text, number in [
        *[("gpt2", "the 犬", 3), ("llama", "the 犬", 3), ("roberta", "犬犬", 6)],
        *[("bert", "犬", 0), ("words", "犬", 0), ("unigram", "犬", 0)],
    ]:
        made = HuggingFaceTokenizer(tokenizer_file(name))
        assert made.byte_tokens(made.encode([text])[0]) == number, name
        longest = made.longest(1000)
        assert longest == sorted(longest, key=lambda piece: (-len(piece), piece))
        assert not any("<0x" in piece for piece in longest)


def test_lossy_files_are_recognised() -> None:
    made = {name: HuggingFaceTokenizer(tokenizer_file(name)) for name in MAKERS}
    restoring = {name for name, one in made.items() if one.restores("The größe 犬 1999")}
    assert restoring == {"gpt2", "roberta", "llama"}
    assert not any(one.drops_characters for one in made.values())
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [], "unk_token": None}
    dropping = HuggingFaceTokenizer(changed("llama", model=model, added_tokens=[]))
    assert dropping.drops_characters
    assert len(dropping.encode(["a𒀀b"])[0]) == 2


def refused(file: bytes) -> str:
    with pytest.raises(TokenizerError) as error:
        HuggingFaceTokenizer(file)
    assert "\n" not in str(error.value)
    return str(error.value)


WORDS = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
NO_UNKNOWN = "it cannot encode characters that its vocabulary lacks ("
WRONG: list[tuple[str, Callable[[], bytes], str]] = [
    ("empty", lambda: b" ", "it is empty"),
    ("text", lambda: b"the cat", "it is not JSON: Expecting value"),
    ("binary", lambda: b"\xff\xfe\x00", "it is not JSON: 'utf-"),
    ("nested", lambda: b"[" * 200_000, "nested too deeply"),
    ("truncated", lambda: tokenizer_file("gpt2")[:5000], "it is not JSON: "),
    ("list", lambda: b"[1]", "it has no 'model'; name the tokenizer.json, not a file beside it"),
    ("tokenizer_config.json", lambda: b'{"do_lower_case": true}', "it has no 'model'; name the"),
    ("vocab.json", lambda: b'{"the": 0, "model": 1}', "it has no 'model'; name the"),
    (
        "ours",
        lambda: b'{"kind": "char", "file": "tokenizer.model"}',
        "it describes a tokenizer of biloom; name the folder instead: prepare.tokenizer",
    ),
    (
        "newer",
        lambda: changed("gpt2", version="2.0"),
        "tokenizers: Unknown tokenizer version '2.0' at line 1 column 17; a newer version of "
        "tokenizers may read it",
    ),
    (
        "model",
        lambda: changed("gpt2", model={"type": "Neural"}),
        "tokenizers: data did not match any variant",
    ),
    (
        "no vocabulary",
        lambda: changed("gpt2", added_tokens=[], model={**WORDS, "vocab": {}}),
        "it has no vocabulary",
    ),
    (
        "above 2^32",
        lambda: changed("words", model={**WORDS, "vocab": {"a": 5_000_000_000}}),
        "tokenizers: invalid value: integer `5000000000`, expected u32",
    ),
    (
        "high id",
        lambda: changed("words", added_tokens=[], model={**WORDS, "vocab": {"a": MOST_IDS}}),
        "its highest id is 16,777,216, and biloom supports ids below 16,777,216",
    ),
    (
        "unknown word",
        lambda: changed("words", added_tokens=[], model={**WORDS, "unk_token": "x"}),
        f"{NO_UNKNOWN}WordLevel error: Missing [UNK] token from the vocabulary)",
    ),
    (
        "unknown piece",
        lambda: changed(
            "unigram",
            added_tokens=[],
            model={"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": None},
        ),
        f"{NO_UNKNOWN}Encountered an unknown token but `unk_id` is missing)",
    ),
    (
        "panic",
        lambda: changed(
            "words", normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}
        ),
        "tokenizers: Precompiled: Error(",
    ),
]


@pytest.mark.parametrize(
    ("file", "told"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_a_file_that_is_no_tokenizer_is_refused(file: Callable[[], bytes], told: str) -> None:
    assert refused(file()).startswith(told)


def test_the_two_kinds_of_file_are_told_apart(tmp_path: Path) -> None:
    pieces = train_sentencepiece(SentencePieceConfig(vocabulary=320), LINES * 20)
    pieces.save(str(tmp_path))
    model, file = tmp_path / "tokenizer.model", tmp_path / "some.json"
    with pytest.raises(TokenizerError) as error:
        read_huggingface(str(model))
    assert str(error.value) == (
        f"tokenizer.file: {model}: cannot be used (it is a SentencePiece model; set "
        "tokenizer.kind=sentencepiece)"
    )
    file.write_bytes(tokenizer_file("bert"))
    assert read_huggingface(str(file)).kind == "huggingface"
    with pytest.raises(TokenizerError) as error:
        read_sentencepiece(str(file))
    assert str(error.value) == (
        f"tokenizer.file: {file}: not a SentencePiece model (it is JSON; if it is a tokenizer.json of "
        "Hugging Face, set tokenizer.kind=huggingface); name the .model file that SentencePiece wrote"
    )


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a dir")):
        with pytest.raises(TokenizerError) as error:
            read_huggingface(str(path))
        assert str(error.value).startswith(f"tokenizer.file: {path}: cannot be read ({reason}")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    HuggingFaceTokenizer(tokenizer_file("bert")).save(str(tmp_path))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for load in (load_tokenizer, lambda folder: read_huggingface(f"{folder}/huggingface.json")):
        with pytest.raises(TokenizerError) as error:
            load(str(tmp_path))
        assert str(error.value) == (
            "a tokenizer.json of Hugging Face needs the package tokenizers: pip install 'biloom[hf]'"
        )


@settings(deadline=None, max_examples=40)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), size=st.floats(0, 1))
def test_a_changed_file_is_used_or_refused(place: float, value: int, size: float) -> None:
    file = bytearray(tokenizer_file("bert"))
    file[int(place * len(file))] = value
    for data in (bytes(file), bytes(file[: int(size * len(file))])):
        try:
            made = HuggingFaceTokenizer(data)
        except TokenizerError:
            continue
        for text in ("the größe 猫が [MASK]", ""):
            ids = made.encode([text])[0]
            made.decode(ids)
            made.tokens(text)
            made.byte_tokens(ids)
        assert len([made.spelling(n) for n in range(made.vocabulary)]) == made.vocabulary
