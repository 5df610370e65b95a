"""Vocabulary files of ELMo archives."""

import bz2
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.models.elmo_errors import ElmoError
from lightning_modules.models.elmo_vocabulary import (
    CONTROLS,
    SKIPPED,
    read_vocabulary,
    write_vocabulary,
)


def read(folder: Path, data: bytes) -> tuple[list[str], tuple[str, ...]]:
    (folder / "vocab.txt").write_bytes(data)
    words, notes = read_vocabulary(f"{folder}/vocab.txt")
    return words, notes


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("<S>\n</S>\n<UNK>\nthe\na\n", ["the", "a"]),
        ("<S>\r\n</S>\r\n<UNK>\r\nthe\r\na", ["the", "a"]),
        ("\ufeff<S>\nthe\n\ufeffa\n", ["the", "\ufeffa"]),
        ("foo\nfoo\u00a0\n foo\n", ["foo", "foo\u00a0", " foo"]),
        ("a\u2028b\na\u2029\nc\x85\n\x0bd\x0c\n\x1c\x1d\x1e\n", None),
        ("a\rb\nc\r", ["a\rb", "c\r"]),
        ("a\nb\n!!!MAXTERMID\n", ["a", "b"]),
        ("", []),
        ("\n", []),
    ],
)
def test_lines_end_at_line_feeds_only(tmp_path: Path, data: str, words: list[str] | None) -> None:
    expected = data.split("\n")[:-1] if words is None else words
    assert read(tmp_path, data.encode())[0] == expected


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    words, notes = read(tmp_path, b"<S>\na\n\nb\n\na\n<S>\nb\nc\nc\na\n\x1b\n\x1b\n")

    assert words == ["a", "b", "c", "\x1b"]
    assert notes == (
        "repeated words are taken once, 5 in all: 'a' (line 6), '<S>' (line 7), 'b' (line 8), ...",
        "empty lines are left out, 2 in all",
    )
    assert read(tmp_path, b"a\nb\n")[1] == ()


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress])
def test_a_compressed_file_is_unpacked(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    assert read(tmp_path, pack(b"the\na\n"))[0] == ["the", "a"]
    with pytest.raises(ElmoError, match=r"vocab\.txt: this compressed file is damaged"):
        read(tmp_path, pack(b"the\na\n" * 100)[:-4])


WORD = st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), min_size=1, max_size=4)
ODD = st.text(alphabet="\r\u00a0\u2028\x85\x0b\ufeff a", min_size=1, max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(WORD | ODD | st.sampled_from([*CONTROLS, SKIPPED]), unique=True))
def test_any_words_come_back(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    data, left_out = write_vocabulary(words)

    assert {*left_out} <= {*CONTROLS, SKIPPED}
    kept = [word for word in words if word not in left_out]
    assert read(tmp_path_factory.getbasetemp(), data) == (kept, ())
