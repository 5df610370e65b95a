"""The dictionaries of an ELMoForManyLangs model: char.dic and word.dic.

Each line has an entry, a tab and its number. Numbers are the rows of the vectors in the weights.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.models.elmo_errors import ElmoError, reading
from preprocess.errors import one_line
from preprocess.files import storage

CHARACTERS, WORDS = "char.dic", "word.dic"
UNKNOWN = "<oov>"

SPECIAL = (UNKNOWN, "<bos>", "<eos>", "<eow>", "<bow>", "<pad>")
"""The entries of the special characters, in the order of their ids in `dictionary_speller`.

The program has the names of the two marks of a word the wrong way round: a word begins with the vector
of <eow> and ends with that of <bow>.
"""

WORD_SPECIAL = (UNKNOWN, "<bos>", "<eos>")
"""The entries of the control tokens, in the order of their ids in a tokenizer."""

SPACE = "\u3000"
"""The entry of a line that has a number only, to the program. It takes other white space for this too."""

Rows = npt.NDArray[np.int64]


class CharacterDictionary(NamedTuple):
    """A dictionary of characters.

    Attributes:
        code_points: the characters, increasing, int64 (characters,).
        rows: the row in the weights of each character id, int64 (characters + special,).
    """

    code_points: Rows
    rows: Rows


class WordDictionary(NamedTuple):
    """A dictionary of words.

    Attributes:
        words: all entries, those of control tokens included, in the order of the rows in the weights.
        rows: the row in the weights of each token id, int64 (control tokens + words,).
    """

    words: Sequence[str]
    rows: Rows


def read_characters(folder: str) -> CharacterDictionary:
    """Read char.dic.

    Raises:
        ElmoError: the file is missing or damaged, lacks a special entry, or has an entry of several
            characters.
    """
    path = storage.join(folder, CHARACTERS)
    entries = _read(path)
    row_of = {entry: row for row, entry in enumerate(entries)}
    for name in SPECIAL:
        if name not in row_of:
            raise ElmoError(f"{path}: '{name}' is missing; copy the file of the model again")
    special = [row_of.pop(name) for name in SPECIAL]
    if long := next((entry for entry in row_of if len(entry) != 1), None):
        raise ElmoError(
            f"{path}: the entry '{one_line(long)[:40]}' is not one character; copy the file of the model "
            "again"
        )
    if not row_of:
        raise ElmoError(f"{path} has no characters; copy the file of the model again")
    points, rows = zip(*sorted((ord(entry), row) for entry, row in row_of.items()), strict=True)
    return CharacterDictionary(np.array(points, np.int64), np.array([*special, *rows], np.int64))


def read_words(folder: str) -> WordDictionary:
    """Read word.dic.

    Raises:
        ElmoError: the file is missing or damaged, or lacks the unknown word.
    """
    path = storage.join(folder, WORDS)
    words = _read(path)
    row_of = {word: row for row, word in enumerate(words)}
    if UNKNOWN not in row_of:
        raise ElmoError(f"{path}: '{UNKNOWN}' is missing; copy the file of the model again")
    # To the program, a boundary token outside the dictionary is an unknown word.
    control = [row_of.get(name, row_of[UNKNOWN]) for name in WORD_SPECIAL]
    return WordDictionary(words, np.array([*control, *range(len(words))], np.int64))


def _read(path: str) -> list[str]:
    """Return the entries of a dictionary in the order of their numbers.

    Raises:
        ElmoError: the file cannot be read, or its numbers are not 0, 1, 2, ..., each once.
    """
    with reading(path, "copy it from the folder of the model"):
        data = storage.read_bytes(path)
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        place = data.count(b"\n", 0, error.start) + 1
        raise ElmoError(
            f"{path} is not UTF-8 text (line {place:,}: {error.reason}); copy the file of the model again"
        ) from error
    entries: dict[int, str] = {}
    known: set[str] = set()
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        entry, _, last = line.rpartition("\t")
        entry, last = entry or SPACE, last.strip()
        if "\t" in entry or not (last.isascii() and last.isdigit() and len(last) < 10):
            raise ElmoError(
                f"{path}: line {number:,} is '{one_line(line)[:40]}', not an entry, a tab and a number; copy "
                "the file of the model again"
            )
        if entry in known or int(last) in entries:
            what = f"'{one_line(entry)[:40]}'" if entry in known else f"the number {last}"
            raise ElmoError(
                f"{path}: line {number:,} has {what} for the second time; copy the file of the model again"
            )
        known.add(entry)
        entries[int(last)] = entry
    for n in range(len(entries)):
        if n not in entries:
            raise ElmoError(
                f"{path}: no entry has the number {n:,}; copy the file of the model again"
            )
    return [entries[n] for n in range(len(entries))]
