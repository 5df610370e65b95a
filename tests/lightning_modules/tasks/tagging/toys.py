"""A tagging task that is learned in seconds, and vectors for it without a language model."""

from collections.abc import Sequence

import numpy as np

from lightning_modules.tasks.tagging.config import TagFitConfig, TaggerConfig
from lightning_modules.tasks.tagging.lexicon import Lexicon
from lightning_modules.tasks.tagging.schemes import detect_scheme
from lightning_modules.tasks.tagging.tagset import TagSet
from lightning_modules.tasks.tagging.trained import TaggerParts
from lightning_modules.tasks.tagging.training import Sentences
from preprocess.reading.labelled.examples import TaggedSentence

PERSONS, PLACES = ("Ann", "Bob", "Eve", "Max"), ("Oslo", "Rome", "Bern", "Kyoto")
FIT = TagFitConfig(epochs=8, patience=8, batch=5, learning_rate=0.02)
SMALL = TaggerConfig(hidden=8, word_size=8, filters=4, character_size=4, dropout=0.1)


class FakeFeatures:
    """Vectors that depend on the words only; stands for `Features`."""

    depth, dim = 3, 4

    def __init__(self, sentences: Sequence[Sequence[str]]) -> None:
        self._sentences = sentences

    def __len__(self) -> int:
        return len(self._sentences)

    def __getitem__(self, index: int) -> np.ndarray:
        rows = [[ord(word[0]) % 7, len(word), word.istitle(), 1] for word in self._sentences[index]]
        return np.stack([np.array(rows, np.float32) * scale for scale in (0.1, 0.2, -0.3)])


def sentences(count: int, seed: int) -> list[TaggedSentence]:
    """Return sentences such as ``Ann Bob went to Oslo``, with three spans in IOB1."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        person, place = draw.choice(PERSONS, draw.integers(1, 3)), draw.choice(PLACES, 1)
        tokens = [*person.tolist(), "went", *["far"] * int(draw.integers(0, 4)), "to", *place]
        outside = ["O"] * (len(tokens) - len(person) - 1)
        tags = ["I-PER", "B-PER"][: len(person)] + outside + ["I-LOC"]
        made.append(TaggedSentence(tuple(map(str, tokens)), tuple(tags), f"line {number}"))
    return made


def with_features(examples: Sequence[TaggedSentence]) -> Sentences:
    return Sentences(examples, FakeFeatures([one.tokens for one in examples]))  # type: ignore[arg-type]


def parts_of(train: Sequence[TaggedSentence]) -> TaggerParts:
    tags = TagSet.of(detect_scheme([one.tags for one in train]), "auto")
    return TaggerParts(SMALL, Lexicon.of([one.tokens for one in train]), tags, True)
