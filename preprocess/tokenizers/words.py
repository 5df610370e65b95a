"""Tokenizer whose tokens are whitespace-separated words.

Words have ids in the order of falling counts in the train split; words of equal count are in byte
order. Words that occur only in held-out text come last, ordered by their count there: they have an id
and a spelling, but are never a target in training. The most frequent words are held in memory, and
all words are in a memory-mapped file.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, repeat

import numpy as np

from preprocess.config import WordConfig
from preprocess.files.manifest import Manifest
from preprocess.files.storage import exists, join
from preprocess.files.verified import read_verified, verify_bytes
from preprocess.tokenizers.base import CONTROLS, UNKNOWN, Ids, Token, TokenizerError
from preprocess.tokenizers.kind_file import save_kind
from preprocess.tokenizers.vocabulary import Vocabulary, mapped

FREQUENT = 100_000
"""Number of words held in memory (15 MB); they cover all but a few percent of running text."""

TEXT, INDEX = "vocabulary.txt", "vocabulary.index"
_MISSING = -1


class WordTokenizer:
    """A `Tokenizer` of whitespace-separated words; words outside its vocabulary are unknown.

    Args:
        words: the vocabulary, without control tokens, in the order of ids.
    """

    kind = "word"

    def __init__(self, words: Vocabulary) -> None:
        self._words = words
        self._ids = {w: n + len(CONTROLS) for n, w in enumerate(words.first(FREQUENT))}
        self._absent = _MISSING if len(self._ids) < len(words) else UNKNOWN
        self.vocabulary = len(CONTROLS) + len(words)

    @classmethod
    def load(cls, folder: str, manifest: Manifest | None = None) -> "WordTokenizer":
        """Load the tokenizer in ``folder``; a missing index (biloom 0.1) is rebuilt in memory.

        Args:
            folder: the tokenizer's folder, a path or URL.
            manifest: its manifest, if it has one.

        Raises:
            DamagedResult: a file differs from its record in the manifest.
            ValueError: the files do not hold a vocabulary.
            OSError: a file cannot be read.
        """
        if not exists(join(folder, INDEX)):
            words = read_verified(folder, manifest, TEXT).decode().split("\n")
            return cls(Vocabulary.of_words(words[:-1]))
        files = [mapped(join(folder, name)) for name in (TEXT, INDEX)]
        for name, data in zip((TEXT, INDEX), files, strict=True):
            verify_bytes(folder, manifest, name, data)
        vocabulary = Vocabulary(*files)
        vocabulary.check_words()
        return cls(vocabulary)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        rows = [text.split() for text in texts]
        ids = self.find(list(chain.from_iterable(rows)))
        ends = np.cumsum([len(row) for row in rows]).tolist()
        return [ids[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    def find(self, words: Sequence[str]) -> Ids:
        """Return the id of each word, UNKNOWN if it is not in the vocabulary; shape (words,)."""
        ids = np.fromiter(map(self._ids.get, words, repeat(self._absent)), np.int32, len(words))
        rare = np.flatnonzero(ids == _MISSING)
        if len(rare):
            spelt = [words[index] for index in rare.tolist()]
            types = list(dict.fromkeys(spelt))
            found = self._words.find([word.encode("utf-8", "surrogatepass") for word in types])
            known = np.where(found < 0, UNKNOWN, found + len(CONTROLS))
            number = dict(zip(types, known.tolist(), strict=True))
            ids[rare] = [number[word] for word in spelt]
        return ids

    def decode(self, ids: Ids) -> str:
        return " ".join(map(self.spelling, ids.tolist()))

    def tokens(self, text: str) -> list[Token]:
        ids = self.find(text.split()).tolist()
        words = re.finditer(r"\S+", text)
        return [Token(n, word[0], *word.span()) for n, word in zip(ids, words, strict=True)]

    def spelling(self, token: int) -> str:
        if token < len(CONTROLS):
            return CONTROLS[token]
        return self._words.word(int(token) - len(CONTROLS))

    def byte_tokens(self, ids: Ids) -> int:
        return 0

    def longest(self, number: int) -> list[str]:
        return self._words.longest(number)

    def first(self, number: int) -> "WordTokenizer":
        """Return a tokenizer of the first ``number`` words, with the same ids."""
        return type(self)(Vocabulary.of_words(self._words.first(number)))

    def save(self, folder: str) -> tuple[str, ...]:
        self._words.save(join(folder, TEXT), join(folder, INDEX))
        return save_kind(folder, self.kind, {"file": TEXT, "index": INDEX}, {})


def count_words(config: WordConfig, texts: Iterable[str]) -> WordTokenizer:
    """Make a word tokenizer from the words of ``texts``, counted in memory.

    A corpus is counted through files instead, by `preprocess.tokenizers.word_counts`.

    Raises:
        TokenizerError: no word occurs at least ``config.min_count`` times.
    """
    counts = Counter(word for text in texts for word in text.split())
    words = [word for word, n in counts.items() if n >= config.min_count]
    if not words:
        raise TokenizerError(NO_WORD)
    return WordTokenizer(Vocabulary.of_words(sorted(words, key=lambda w: (-counts[w], w))))


NO_WORD = (
    "the train split has no word for the vocabulary; check prepare.input, prepare.filters and "
    "tokenizer.min_count"
)
