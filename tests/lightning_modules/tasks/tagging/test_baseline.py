"""The most frequent tag of each word."""

from lightning_modules.tasks.tagging.baseline import MostFrequentTags

PAIRS = [
    (("Paris", "is", "big"), ("I-LOC", "O", "O")),
    (("Paris", "Hilton", "is"), ("I-PER", "I-PER", "O")),
    (("Paris",), ("I-LOC",)),
]


def test_unseen_words_are_in_no_span() -> None:
    baseline = MostFrequentTags.of(PAIRS, has_spans=True)
    assert baseline.predict(["Paris", "Hilton", "Rome"]) == ("I-LOC", "I-PER", "O")


def test_an_unseen_word_has_the_most_frequent_tag_of_rare_words() -> None:
    tagged = [(("a", "a", "a", "dog", "cat", "go"), ("D", "D", "D", "N", "N", "V"))]
    baseline = MostFrequentTags.of(tagged, has_spans=False)
    assert baseline.predict(["a", "bird"]) == ("D", "N")


def test_ties_are_broken_by_the_alphabet() -> None:
    for tags in (("B", "A"), ("A", "B")):
        assert MostFrequentTags.of([(("x", "x"), tags)], has_spans=True).predict(["x"]) == ("A",)
