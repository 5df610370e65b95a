"""Which pooling makes the best vector of a sentence or a word, judged by linear classifiers.

    python benchmarks/pooling.py MODEL TASK [TASK ...] [--data FOLDER] [--json FILE]

MODEL is a model folder. The data folder (default: $BILOOM_TEST_DATA/labelled) holds the tasks:

    sst2           sentiment, train and dev; accuracy
    trec, mr       question types and sentiment, 3 folds; accuracy
    chnsenticorp   sentiment, the first 3,000 and 1,200 texts of train and dev; accuracy
    entities, pos  named entity tags, or parts of speech, of the first 20,000 words of CoNLL-2003's train
                   and 10,000 of testa; accuracy

A text is embedded once. The vectors of its tokens are pooled in each way, for each layer, for the mean
of the layers and for all layers in one vector. A logistic regression (scikit-learn) on standardised
vectors gives the accuracy; its C is the best of 0.001, 0.01, 0.1 and 1 on a fifth of the training
texts. For sentences, tf-idf of words (characters if the text is Chinese) stands beside it.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from biloom import BiLM

Floats = npt.NDArray[np.float32]
Strings = npt.NDArray[np.str_]
POOLINGS = ("direction", "mean", "max", "first", "last")
FOLDS = 3
COLUMNS = {"entities": 3, "pos": 1}
STRENGTHS = (0.001, 0.01, 0.1, 1.0)


class Examples(NamedTuple):
    """Texts (strings, or lists of words) with a label per text, or a list of labels per text."""

    texts: list[Any]
    labels: list[Any]


Split = tuple[Examples, Examples]


def lines(path: Path, encoding: str = "utf-8") -> list[str]:
    with path.open(encoding=encoding, newline="\n") as file:
        return [line.rstrip("\n") for line in file if line.strip()]


def text_first(path: Path) -> Examples:
    rows = [line.rsplit("\t", 1) for line in lines(path)]
    return Examples([row[0] for row in rows], [row[1] for row in rows])


def label_first(path: Path, encoding: str, separator: str) -> Examples:
    rows = [line.split(separator, 1) for line in lines(path, encoding)]
    return Examples([row[1] for row in rows], [row[0] for row in rows])


def first(examples: Examples, number: int, start: int = 0) -> Examples:
    return Examples(*(part[start : start + number] for part in examples))


def words(path: Path, column: int, number: int) -> Examples:
    sentences: list[list[list[str]]] = [[]]
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("-DOCSTART-") or not line.strip():
                sentences.append([])
            else:
                sentences[-1].append(line.split())
    kept, count = [], 0
    for sentence in filter(None, sentences):
        kept.append(sentence)
        count += len(sentence)
        if count >= number:
            break
    return Examples(
        [[row[0] for row in one] for one in kept], [[row[column] for row in one] for one in kept]
    )


def read(task: str, data: Path) -> Split | Examples:
    """Return the training and test texts of a task, or all its texts if it is judged by folds."""
    if task == "sst2":
        return text_first(data / "sst2/train.tsv"), text_first(data / "sst2/dev.tsv")
    if task == "trec":
        return label_first(data / "trec/TREC.train.all", "latin-1", " ")
    if task == "mr":
        return label_first(data / "mr/rt-polarity.all", "latin-1", " ")
    if task == "chnsenticorp":
        both = [
            label_first(data / f"chnsenticorp/{part}.tsv", "utf-8", "\t")
            for part in ("train", "dev")
        ]
        return first(both[0], 3000, 1), first(both[1], 1200, 1)
    if task in COLUMNS:
        folder = data / "conll2003"
        return (
            words(folder / "eng.train", COLUMNS[task], 20_000),
            words(folder / "eng.testa", COLUMNS[task], 10_000),
        )
    raise SystemExit(f"unknown task {task}")


def pool(tokens: Floats, first: int, last: int, how: str) -> Floats:
    """Return the vector of tokens[:, first : last + 1], (layers, dim); see `Selection.pooling`."""
    if how == "mean":
        return tokens[:, first : last + 1].mean(1)
    if how == "max":
        return tokens[:, first : last + 1].max(1)
    half = tokens.shape[2] // 2
    forward = first if how == "first" else last
    backward = last if how == "last" else first
    return np.concatenate([tokens[:, forward, :half], tokens[:, backward, half:]], 1)


def vectors(model: BiLM, texts: Sequence[Any]) -> dict[str, Floats]:
    """Return the vectors of sentences, or of the words of lists, by pooling: (units, layers, dim)."""
    found: dict[str, list[Floats]] = {how: [] for how in POOLINGS}
    listed = not isinstance(texts[0], str)
    spans = iter(model.reader.read(texts))
    for embedding in model.iter_embed(texts):
        count = embedding.vectors.shape[1]
        bounds = [(0, count - 1)]
        if listed:
            bounds = list(zip(*(one.tolist() for one in next(spans).word_spans()), strict=True))
        for start, end in bounds:
            for how in POOLINGS:
                found[how].append(pool(embedding.vectors, start, end, how))
    return {how: np.stack(rows) for how, rows in found.items()}


def combinations(layers: Floats) -> Iterator[tuple[str, Floats]]:
    """Yield each layer, the layers' mean and their concatenation, (units, size)."""
    for layer in range(layers.shape[1]):
        yield f"layer {layer}", layers[:, layer]
    yield "mean", layers.mean(1)
    yield "concat", layers.reshape(len(layers), -1)


def fitted(make: Callable[[float], Any], x: Any, y: Strings) -> Any:
    """Return a classifier fitted with the C that is best on a fifth of the training examples."""
    parts = train_test_split(np.arange(len(y)), test_size=0.2, random_state=0, shuffle=True)
    scores = {
        c: make(c).fit(x[parts[0]], y[parts[0]]).score(x[parts[1]], y[parts[1]]) for c in STRENGTHS
    }
    return make(max(scores, key=lambda c: scores[c])).fit(x, y)


def linear(c: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300))


def sparse(c: float) -> Any:
    return LogisticRegression(C=100 * c, max_iter=1000)


def accuracy(
    make: Callable[[float], Any], train: Any, test: Any, y: Strings, gold: Strings
) -> float:
    return float(fitted(make, train, y).score(test, gold))


def folds(labels: Strings) -> list[tuple[Any, Any]]:
    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels))


def judge(model: BiLM, task: str, data: Path) -> dict[str, float]:
    """Return the accuracy by "pooling, layers"."""
    examples = read(task, data)
    if isinstance(examples, Examples):
        texts, labels = examples
        parts = folds(np.array(labels))
    else:
        texts = examples[0].texts + examples[1].texts
        labels = examples[0].labels + examples[1].labels
        parts = []
    flat = np.array(labels if isinstance(texts[0], str) else [one for row in labels for one in row])
    if not parts:
        assert not isinstance(examples, Examples)
        known = examples[0].labels
        count = len(known) if isinstance(texts[0], str) else sum(map(len, known))
        parts = [(np.arange(count), np.arange(count, len(flat)))]
    found: dict[str, float] = {}

    def add(name: str, make: Callable[[float], Any], x: Any) -> None:
        scores = [accuracy(make, x[a], x[b], flat[a], flat[b]) for a, b in parts]
        found[name] = float(np.mean(scores))
        print(f"  {name:<24} {100 * found[name]:5.1f}", flush=True)

    if isinstance(texts[0], str):
        by_character = task == "chnsenticorp"
        tfidf = TfidfVectorizer(
            analyzer="char" if by_character else "word",
            token_pattern=r"\S+",
            ngram_range=(1, 2),
            min_df=2,
            sublinear_tf=True,
        )
        add("tf-idf", sparse, tfidf.fit_transform(texts))
    pooled = vectors(model, texts)
    for how in POOLINGS:
        for name, x in combinations(pooled[how]):
            add(f"{how}, {name}", linear, x)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = options.data or Path(os.environ["BILOOM_TEST_DATA"]) / "labelled"
    torch.set_num_threads(1)
    model = BiLM.from_pretrained(options.model)
    results = {}
    for task in options.tasks:
        begun = time.process_time()
        print(task, flush=True)
        results[task] = judge(model, task, data)
        print(f"  ({time.process_time() - begun:.0f} CPU seconds)", flush=True)
    print(json.dumps(results))
    if options.json:
        options.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
