"""Whitespace-separated words with ids of their own; the frequent ones in memory, all in a file.

Ids are ranks by count in the train split, ties by bytes. A type that only held-out text has follows
after all of those, by its count there, then bytes: it never was a target in training, but it keeps
a spelling and an id.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, repeat

import numpy as np

from preprocess.config import WordConfig
from preprocess.files.storage import exists, join, read_bytes
from preprocess.tokenizers.base import CONTROLS, UNKNOWN, Ids, Token, TokenizerError
from preprocess.tokenizers.kind_file import save_kind
from preprocess.tokenizers.vocabulary import Vocabulary

FREQUENT = 100_000
"""Types held in memory, 15 MB: of running text all but a few in a hundred."""

TEXT, INDEX = "vocabulary.txt", "vocabulary.index"
_MISSING = -1


class WordTokenizer:
    """Words of a vocabulary; every other one is the unknown word."""

    kind = "word"

    def __init__(self, words: Vocabulary) -> None:
        self._words = words
        self._ids = {w: n + len(CONTROLS) for n, w in enumerate(words.first(FREQUENT))}
        self._absent = _MISSING if len(self._ids) < len(words) else UNKNOWN
        self.vocabulary = len(CONTROLS) + len(words)

    @classmethod
    def load(cls, folder: str) -> "WordTokenizer":
        """The tokenizer in ``folder``; where the index is missing (biloom 0.1), it is made in memory."""
        if exists(join(folder, INDEX)):
            return cls(Vocabulary.open(join(folder, TEXT), join(folder, INDEX)))
        return cls(Vocabulary.of_words(read_bytes(join(folder, TEXT)).decode().split("\n")[:-1]))

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        rows = [text.split() for text in texts]
        ids = self._find(list(chain.from_iterable(rows)))
        ends = np.cumsum([len(row) for row in rows]).tolist()
        return [ids[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    def _find(self, words: Sequence[str]) -> Ids:
        ids = np.fromiter(map(self._ids.get, words, repeat(self._absent)), np.int32, len(words))
        rare = np.flatnonzero(ids == _MISSING)
        if len(rare):
            spelt = [words[place] for place in rare.tolist()]
            types = list(dict.fromkeys(spelt))
            found = self._words.find([word.encode() for word in types])
            known = np.where(found < 0, UNKNOWN, found + len(CONTROLS))
            number = dict(zip(types, known.tolist(), strict=True))
            ids[rare] = [number[word] for word in spelt]
        return ids

    def decode(self, ids: Ids) -> str:
        return " ".join(map(self.spelling, ids.tolist()))

    def tokens(self, text: str) -> list[Token]:
        words = text.split()
        found, place = [], 0
        for word, token in zip(words, self._find(words).tolist(), strict=True):
            start = text.index(word, place)
            place = start + len(word)
            found.append(Token(token, word, start, place))
        return found

    def spelling(self, token: int) -> str:
        if token < len(CONTROLS):
            return CONTROLS[token]
        return self._words.word(int(token) - len(CONTROLS))

    def byte_tokens(self, ids: Ids) -> int:
        return 0

    def longest(self, number: int) -> list[str]:
        return self._words.longest(number)

    def save(self, folder: str) -> tuple[str, ...]:
        self._words.save(join(folder, TEXT), join(folder, INDEX))
        return save_kind(folder, self.kind, file=TEXT, index=INDEX)


def count_words(config: WordConfig, texts: Iterable[str]) -> WordTokenizer:
    """The tokenizer of ``texts`` of the train split; a larger corpus goes through `word_counts`.

    Raises:
        TokenizerError: there is no word.
    """
    counts = Counter(word for text in texts for word in text.split())
    words = [word for word, n in counts.items() if n >= config.min_count]
    if not words:
        raise TokenizerError(NO_WORD)
    return WordTokenizer(Vocabulary.of_words(sorted(words, key=lambda w: (-counts[w], w))))


NO_WORD = "the train split has no word to make a vocabulary of"
