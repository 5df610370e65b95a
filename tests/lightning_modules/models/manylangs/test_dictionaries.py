"""char.dic and word.dic of ELMoForManyLangs."""

from pathlib import Path

import pytest

from lightning_modules.models.elmo_errors import ElmoError
from lightning_modules.models.manylangs.dictionaries import read_characters, read_words

SPECIAL = ["<bos>", "<eos>", "<oov>", "<pad>", "<bow>", "<eow>"]


def write(folder: Path, name: str, lines: list[str], end: str = "\n") -> str:
    (folder / name).write_bytes("".join(line + end for line in lines).encode())
    return str(folder)


def numbered(entries: list[str]) -> list[str]:
    return [f"{entry}\t{number}" for number, entry in enumerate(entries)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_characters_are_ordered_and_know_their_rows(tmp_path: Path, end: str) -> None:
    lines = [*numbered(["b", "a", *SPECIAL]), "8", "😀\t9", "\u00a0\t10", "\u2028\t11"]
    found = read_characters(write(tmp_path, "char.dic", lines[::-1], end))

    assert [chr(point) for point in found.code_points] == [*"ab\u00a0\u2028\u3000😀"]
    # Unknown, begin and end of a text, begin and end of a word, padding; then the characters.
    assert found.rows.tolist() == [4, 2, 3, 7, 6, 5, 1, 0, 10, 11, 8, 9]


def test_words_know_their_rows(tmp_path: Path) -> None:
    entries = ["<bos>", "the", "<oov>", "<pad>", "naïve"]
    found = read_words(write(tmp_path, "word.dic", numbered(entries)))

    assert list(found.words) == entries
    # Without an end of a text, it is an unknown word.
    assert found.rows.tolist() == [2, 0, 2, 0, 1, 2, 3, 4]


A = numbered(["a", *SPECIAL])
WRONG = [
    (A[:-1], "'<eow>' is missing; copy the file of the model again"),
    (A[1:], r"char\.dic: no entry has the number 0; copy"),
    ([*A, "b\t6"], "line 8 has the number 6 for the second time"),
    ([*A, "a\t7"], "line 8 has 'a' for the second time"),
    ([*A, "a b"], "line 8 is 'a b', not an entry, a tab and a number"),
    ([*A, "b\t7\t7"], r"line 8 is 'b\\t7\\t7', not an entry"),
    ([*A, "b\t-7"], r"line 8 is 'b\\t-7', not an entry"),
    ([*A, "7", "\u3000\t8"], "line 9 has '\u3000' for the second time"),
    ([*A, ""], "line 8 is '', not an entry"),
    ([*A, "ab\t7"], "the entry 'ab' is not one character"),
    (numbered(SPECIAL), "has no characters"),
    ([], "'<oov>' is missing"),
]


@pytest.mark.parametrize(("lines", "told"), WRONG)
def test_a_dictionary_that_is_none_is_reported(tmp_path: Path, lines: list[str], told: str) -> None:
    folder = write(tmp_path, "char.dic", lines)
    with pytest.raises(ElmoError, match=told):
        read_characters(folder)


def test_files_that_are_missing_or_not_text_are_reported(tmp_path: Path) -> None:
    with pytest.raises(
        ElmoError, match=r"word\.dic is missing; copy it from the folder of the mod"
    ):
        read_words(str(tmp_path))
    (tmp_path / "word.dic").write_bytes(b"<oov>\t0\n\xff\t1\n")
    with pytest.raises(ElmoError, match=r"is not UTF-8 text \(line 2: invalid start byte\)"):
        read_words(str(tmp_path))
    with pytest.raises(ElmoError, match=r"word\.dic: '<oov>' is missing"):
        read_words(write(tmp_path, "word.dic", ["a\t0"]))
