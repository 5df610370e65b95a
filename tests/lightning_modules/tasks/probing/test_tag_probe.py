"""Probes of known vectors: what is encoded is found, what is memorised is not selective."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lightning_modules.tasks.probing.linear_probe import ProbeError, fit_linear
from lightning_modules.tasks.probing.tag_probe import control_labels, probe_tags, steps_of
from preprocess.reading.labelled.examples import TaggedSentence

TAGS = ("A", "B", "C")


class Model:
    """A model whose layer 0 tells the word and whose layer 1 tells the tag of the next word."""

    depth, dim = 2, 12

    def iter_embed(self, texts, **options):
        assert options == {"unit": "word", "pooling": "direction"}
        for words in texts:
            vectors = np.zeros((2, len(words), self.dim), "f4")
            for n, word in enumerate(words):
                vectors[0, n, int(word[1:]) % self.dim] = 1
                vectors[1, n, TAGS.index(tag_of(words, n))] = 1
            yield SimpleNamespace(vectors=vectors)


def tag_of(words, n):
    """The tag depends on the word and on the next one."""
    after = int(words[n + 1][1:]) if n + 1 < len(words) else 0
    return TAGS[(int(words[n][1:]) + after) % 3]


def sentences(number, seed):
    random = np.random.default_rng(seed)
    made = []
    for n in range(number):
        words = tuple(f"w{k}" for k in random.integers(12, size=random.integers(2, 9)))
        made.append(
            TaggedSentence(words, tuple(tag_of(words, k) for k in range(len(words))), f"{n}")
        )
    return made


TRAIN, DEV = sentences(200, 0), sentences(60, 1)


def test_the_layer_that_encodes_the_tags_is_accurate_and_selective():
    calls = []
    found = probe_tags(Model(), TRAIN, DEV, 1, progress=lambda done, note: calls.append(done))
    first, second = found.layers
    assert second.accuracy.value == 1.0
    assert first.accuracy.value < 0.6
    # Layer 0 memorises words, so it learns any label of theirs.
    assert first.control.value == 1.0
    assert first.selectivity.value < 0 < 0.3 < second.selectivity.value
    for one in found.layers:
        assert one.selectivity.value == pytest.approx(one.accuracy.value - one.control.value)
        assert one.accuracy.low <= one.accuracy.value <= one.accuracy.high
        assert one.converged
    assert found.tags == 3
    assert found.dev_tokens == sum(len(one.tokens) for one in DEV)
    assert calls == list(range(steps_of(Model(), True)))


def test_the_baselines():
    train = [TaggedSentence(("a", "a", "a", "b"), ("X", "X", "Y", "Y"), "1")] * 2
    dev = [TaggedSentence(("a", "b", "new", "b"), ("X", "Y", "X", "Z"), "1")]
    found = probe_tags(Words(), train, dev, 1, control=False)
    assert found.word_tag.value == 0.75  # new has the most frequent tag, the first of X and Y
    assert found.majority.value == 0.5
    assert (found.unseen_tags, found.unseen_words, found.repeated) == (1, 0.25, 0)
    assert found.layers[0].control is found.layers[0].selectivity is None
    assert probe_tags(Words(), train, train, 1, control=False).repeated == 2


class Words(Model):
    def iter_embed(self, texts, **options):
        for words in texts:
            yield SimpleNamespace(vectors=np.ones((2, len(words), self.dim), "f4"))


def test_words_are_lower_cased_before_they_are_embedded():
    train = [TaggedSentence(("A", "b"), ("X", "Y"), "1")]
    dev = [TaggedSentence(("a", "B"), ("X", "Y"), "1")]
    assert probe_tags(Words(), train, dev, 1, False).word_tag.value == 0.5
    assert probe_tags(Words(), train, dev, 1, False, str.lower).word_tag.value == 1


def test_labels_of_the_control_task_have_the_distribution_of_the_tags():
    types = [f"w{n}" for n in range(4000)]
    labels = control_labels(types, np.array([30, 60, 10]), 1)
    share = np.bincount([labels[word] for word in types]) / len(types)
    np.testing.assert_allclose(share, [0.3, 0.6, 0.1], atol=0.03)
    assert labels == control_labels(types, np.array([30, 60, 10]), 1)
    assert labels != control_labels(types, np.array([30, 60, 10]), 2)


def test_what_cannot_be_probed_is_told(monkeypatch):
    one_tag = [TaggedSentence(("a", "b"), ("O", "O"), "1")]
    with pytest.raises(
        ProbeError, match="all training tokens have the tag 'O'; name another column"
    ):
        probe_tags(Model(), one_tag, one_tag, 1)
    with pytest.raises(ProbeError, match="no sentences to learn from"):
        probe_tags(Model(), [], DEV, 1)
    with pytest.raises(ProbeError, match="no sentences to test on"):
        probe_tags(Model(), TRAIN, [], 1)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ProbeError, match=r"pip install 'biloom\[tasks\]'"):
        fit_linear(np.ones((2, 2), "f4"), np.array([0, 1]), np.ones((1, 2), "f4"))


def test_a_probe_that_does_not_converge_says_so(monkeypatch):
    monkeypatch.setattr("lightning_modules.tasks.probing.linear_probe.ITERATIONS", 1)
    rows = np.random.default_rng(0).standard_normal((50, 3)).astype("f4")
    fit = fit_linear(rows, (rows[:, 0] > 0).astype(int), rows)
    assert (fit.iterations, fit.converged) == (1, False)


def test_a_control_task_with_one_label_is_predicted():
    train = [
        TaggedSentence(("a", "b"), ("X", "X"), "1"),
        TaggedSentence(("a", "b"), ("X", "Y"), "2"),
    ]
    # With this seed, both words have the same label.
    assert control_labels(["a", "b"], np.array([3, 1]), 0) == {"a": 0, "b": 0}
    found = probe_tags(Words(), train, train, 0)
    assert [one.control.value for one in found.layers] == [1, 1]
