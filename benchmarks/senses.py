"""How well the layers of a model separate the senses of a word, compared with a static vector.

    python benchmarks/senses.py MODEL [--data FOLDER] [--lower]

MODEL is a model folder. The data folder (default: $BILOOM_TEST_DATA/labelled) holds
wsd/wsd_senseval.tsv (columns word, sense, index of the word, tokens; the words are line, hard, serve
and interest) and the English dev pairs of mcl-wic.

Sense of a word: 100 random occurrences of each word have known senses. The sense of up to 500 others
is predicted by a majority vote of the five nearest known ones by cosine. Accuracy is the mean over the
four words.

Same sense or not: a pair has the same sense if the cosine of its two words is above a threshold. The
threshold is chosen on one half of the pairs and tested on the other, and vice versa.

"static" is the mean of the layer-0 vectors of the sentence, which do not depend on context, as in
word2vec. --lower lower-cases the texts, for a model that was trained on lower-cased text.
"""

import argparse
import collections
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from biloom import BiLM

Floats = npt.NDArray[np.float64]
KNOWN, TESTED, NEAREST = 100, 500, 5


def vectors(
    model: BiLM, texts: Sequence[Sequence[str]], indices: Sequence[int]
) -> dict[str, Floats]:
    """Return unit vectors (texts, dim) of the word at this index of each text, by kind of vector."""
    found: dict[str, list[Floats]] = collections.defaultdict(list)
    for embedding, index in zip(model.iter_embed(texts, unit="word"), indices, strict=True):
        layers = embedding.vectors.astype(np.float64)  # (layers, words, dim)
        for layer in range(model.depth):
            found[f"layer {layer}" + (" (no context)" if not layer else "")].append(
                layers[layer, index]
            )
        found["mean of layers"].append(layers[:, index].mean(0))
        found["static"].append(layers[0].mean(0))
    return {
        kind: np.stack(rows) / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        for kind, rows in found.items()
    }


def senses(model: BiLM, path: Path, case: Callable[[str], str]) -> dict[str, float]:
    """Return the accuracy of predicted senses by kind of vector, averaged over the words."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    accuracy: dict[str, list[float]] = collections.defaultdict(list)
    for word in sorted({row[0] for row in rows}):
        of_word = [row for row in rows if row[0] == word]
        order = np.random.default_rng(1).permutation(len(of_word))[: KNOWN + TESTED]
        of_word = [of_word[n] for n in order]
        labels = np.array([row[1] for row in of_word])
        known, tested = labels[:KNOWN], labels[KNOWN:]
        most = collections.Counter(known.tolist()).most_common(1)[0][0]
        accuracy["the most frequent sense"].append(float((tested == most).mean()))
        texts = [case(row[3]).split() for row in of_word]
        for kind, found in vectors(model, texts, [int(row[2]) for row in of_word]).items():
            near = np.argsort(-(found[KNOWN:] @ found[:KNOWN].T), 1)[:, :NEAREST]
            votes = [collections.Counter(known[one].tolist()).most_common(1)[0][0] for one in near]
            accuracy[kind].append(float((np.array(votes) == tested).mean()))
    return {kind: float(np.mean(found)) for kind, found in accuracy.items()}


def same_sense(model: BiLM, folder: Path, case: Callable[[str], str]) -> dict[str, float]:
    """Return the accuracy of "same sense or not" by kind of vector."""
    pairs = json.loads((folder / "dev.en-en.data").read_text(encoding="utf-8"))
    gold = {one["id"]: one["tag"] for one in json.loads((folder / "dev.en-en.gold").read_text())}
    answers = np.array([gold[one["id"]] == "T" for one in pairs])
    sides = []
    for side in ("1", "2"):
        texts, indices = [], []
        for one in pairs:
            text = one[f"sentence{side}"]
            found = list(re.finditer(r"\w+|[^\w\s]", text))
            start = int(one[f"start{side}"])
            indices.append(next(n for n, word in enumerate(found) if word.end() > start))
            texts.append([case(word.group()) for word in found])
        sides.append(vectors(model, texts, indices))
    halves = np.arange(len(pairs)) % 2 == 0
    accuracy = {"always the same answer": float(max(answers.mean(), 1 - answers.mean()))}
    for kind in sides[0]:
        cosine = (sides[0][kind] * sides[1][kind]).sum(1)
        right = 0.0
        for half in (halves, ~halves):
            thresholds = np.sort(cosine[half])
            best = max(thresholds, key=lambda t: ((cosine[half] >= t) == answers[half]).mean())
            right += ((cosine[~half] >= best) == answers[~half]).mean() / 2
        accuracy[kind] = float(right)
    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--lower", action="store_true")
    options = parser.parse_args()
    data = options.data or Path(os.environ["BILOOM_TEST_DATA"]) / "labelled"
    torch.set_num_threads(1)
    model = BiLM.from_pretrained(options.model)
    case = str.lower if options.lower else str
    wsd = senses(model, data / "wsd" / "wsd_senseval.tsv", case)
    wic = same_sense(model, data / "mcl-wic", case)
    for title, found in (("sense of a word", wsd), ("same sense or not", wic)):
        print(f"\n{title}")
        for kind, value in found.items():
            print(f"  {kind:<28} {100 * value:5.1f} %")
    print(json.dumps({"senses": wsd, "same_sense": wic}))


if __name__ == "__main__":
    main()
