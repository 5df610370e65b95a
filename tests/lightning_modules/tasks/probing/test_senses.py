"""Senses of words and word-in-context, with known vectors."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lightning_modules.tasks.probing.linear_probe import ProbeError
from lightning_modules.tasks.probing.senses import same_sense, word_senses

DIM = 4


class Model:
    """A model whose layer 1 tells the word before, and whose layer 0 tells only the word."""

    depth, dim, network = 2, DIM, SimpleNamespace(directions=2)

    def iter_embed(self, texts, unit="token", **options):
        for text in texts:
            words = list(text) if isinstance(text, str) else text
            vectors = np.zeros((2, len(words), DIM), "f4")
            for n, word in enumerate(words):
                vectors[0, n] = [len(word), 1, len(word), 1]
                vectors[1, n, [0, 2] if n and words[n - 1] in ("river", "河") else [1, 3]] = 1
            tokens = [SimpleNamespace(spelling=word) for word in words]
            yield SimpleNamespace(vectors=vectors, tokens=tokens)


def test_the_layer_that_tells_the_sense_is_right(tmp_path):
    random = np.random.default_rng(0)
    lines = []
    for n in range(300):
        sense, before = ("water", "river") if random.random() < 0.4 else ("money", "loan")
        lines.append(f"{'bank' if n % 2 else 'shore'}\t{sense}\t1\t{before} word {n}\n")
    path = tmp_path / "senses.tsv"
    path.write_text("".join(lines) + "\n")
    found = word_senses(Model(), str(path))
    assert found.examples == 100
    assert next(iter(found.scores)) == "the most frequent sense"
    assert found.scores["layer 1"].value == 1.0
    assert 0.4 < found.scores["the most frequent sense"].value < 0.8
    assert found.scores["layer 0 (no context)"].value < 0.8
    low = found.scores["the most frequent sense"]
    assert low.low < low.value < low.high


def pairs(tmp_path, texts, tags="TF" * 10):
    rows, gold = [], []
    for n, (first, second) in enumerate(texts):
        one = {"id": f"p{n}"}
        for side, text in (("1", first), ("2", second)):
            start = text.index("[")
            word = text[start + 1 : text.index("]")]
            one |= {f"sentence{side}": text.replace("[", "").replace("]", "")}
            one |= {f"start{side}": str(start), f"end{side}": str(start + len(word))}
        rows.append(one)
        gold.append({"id": f"p{n}", "tag": tags[n]})
    (tmp_path / "x.data").write_text(json.dumps(rows))
    (tmp_path / "x.gold").write_text(json.dumps(gold))
    return str(tmp_path / "x.data")


@pytest.mark.parametrize(
    "texts",
    [
        [("river [bank], x", "river [bank]?"), ("river [bank] x", "loan [bank]")] * 4,
        [
            ("我在大河[银行]散步真的很好吗朋友", "他们在大河[银行]那边一起坐着看书"),
            ("我在大河[银行]散步真的很好吗朋友", "他们在大贷[银行]那边一起坐着看书"),
        ]
        * 4,
    ],
)
def test_the_same_sense_is_near(tmp_path, texts):
    found = same_sense(Model(), pairs(tmp_path, texts))
    assert found.examples == 8
    assert found.scores["always the same answer"].value == 0.5
    assert found.scores["layer 1"].value == 1.0
    assert found.scores["static"].value < 1.0


def test_files_of_another_kind_are_told(tmp_path):
    path = tmp_path / "x.tsv"
    for content, told in (
        ("word\tsense\tindex\ttokens\n", "line 1 is not word, sense, index of the word from 0"),
        ("w\ts\t2\ta b\n", "line 1 is not"),
        ("w\ts\t0\ta b\nw\ts\n", "line 2 is not"),
        ("\n", "the file has no lines"),
        ("w\ts\t0\ta b\n", "no word has more than 100 occurrences"),
    ):
        path.write_text(content)
        with pytest.raises(ProbeError, match=told):
            word_senses(Model(), str(path))
    path.write_bytes(b"\xff")
    with pytest.raises(ProbeError, match="byte 0 is not UTF-8"):
        word_senses(Model(), str(path))
    with pytest.raises(ProbeError, match="name a file that exists"):
        word_senses(Model(), str(tmp_path / "none"))


def test_pairs_of_another_kind_are_told(tmp_path):
    path = tmp_path / "x.data"
    for content, told in (
        ("{", "not JSON"),
        ("{}", "not a JSON list of objects"),
        ("[{}]", "fields id"),
    ):
        path.write_text(content)
        with pytest.raises(ProbeError, match=told):
            same_sense(Model(), str(path))
    name = pairs(tmp_path, [("a [b]", "a [b]")] * 2, tags="TX")
    with pytest.raises(ProbeError, match="no tag T or F for the pair 'p1'"):
        same_sense(Model(), name)
    with pytest.raises(ProbeError, match="1 pairs, and two are needed"):
        same_sense(Model(), pairs(tmp_path, [("a [b]", "a [b]")]))
    rows = json.loads((tmp_path / "x.data").read_text()) * 2
    (tmp_path / "x.data").write_text(json.dumps([{**rows[0], "end1": "99"}, rows[1]]))
    with pytest.raises(ProbeError, match="has no word at characters 2 to 99 of sentence1"):
        same_sense(Model(), name)
    (tmp_path / "x.data").write_text(
        json.dumps([{**one, "sentence1": "a b ", "start1": "3", "end1": "4"} for one in rows])
    )
    with pytest.raises(ProbeError, match="marks only spaces in sentence1"):
        same_sense(Model(), name)
