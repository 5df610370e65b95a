"""Static models beside the model that they were made from: classification by mean vectors, and speed.

    python benchmarks/static_vectors.py --teacher MODEL --static MODEL ... --train FILE --dev FILE

A text has the mean of its tokens' vectors; a logistic regression reads them, scaled to unit variance. Prints the
accuracy on the dev texts for each layer of the teacher, for the average of its layers, and for each static
model, then CPU microseconds a text, for one text at a time and for all together.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from biloom import BiLM
from preprocess.reading.labelled.options import LabelledTextOptions
from preprocess.reading.labelled.texts import read_labelled_texts

STRENGTHS = (0.01, 0.1)
"""Inverse strengths of the regularisation (C of scikit-learn)."""
TIMED = 1000
"""Texts whose time is measured."""
REPEATS = 3
"""Measurements, of which the fastest counts."""

Floats = npt.NDArray[np.float32]


def means(model: BiLM, texts: Sequence[str]) -> Floats:
    """Return the mean vector of each text in each layer, (texts, depth, dim)."""
    found = np.zeros((len(texts), model.depth, model.dim), np.float32)
    for mean, one in zip(found, model.iter_embed(texts), strict=True):
        if len(one.tokens):
            mean[:] = one.vectors.mean(1)
    return found


def accuracies(train: Floats, labels: list[str], dev: Floats, gold: list[str]) -> list[float]:
    """Return the accuracy in percent for each of `STRENGTHS`."""
    scaler = StandardScaler().fit(train)
    found = []
    for strength in STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=500).fit(scaler.transform(train), labels)
        found.append(100 * float(np.mean(fitted.predict(scaler.transform(dev)) == np.array(gold))))
    return found


def microseconds(work: Callable[[], object], texts: int) -> float:
    """Return the CPU microseconds a text of the fastest of some calls."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds) / texts * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--static", nargs="+", default=[])
    parser.add_argument("--train", required=True)
    parser.add_argument("--dev", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sides = []
    for path in (options.train, options.dev):
        examples = read_labelled_texts(path, LabelledTextOptions()).examples
        sides.append(([one.text for one in examples], [one.labels[0] for one in examples]))
    (texts, labels), (others, gold) = sides
    print(f"{len(texts):,} train, {len(others):,} dev; C={', '.join(map(str, STRENGTHS))}")
    for path in (options.teacher, *options.static):
        model = BiLM.from_pretrained(path)
        train, dev = means(model, texts), means(model, others)
        rows = {f"layer {layer}": (train[:, layer], dev[:, layer]) for layer in range(model.depth)}
        if model.depth > 1:
            rows["average"] = train.mean(1), dev.mean(1)
        size = (Path(path) / "model.safetensors").stat().st_size / 1e6
        print(f"{path}: {size:.1f} MB of weights, {model.dim} numbers")
        for name, (one, other) in rows.items():
            scores = ", ".join(f"{score:.2f}" for score in accuracies(one, labels, other, gold))
            print(f"  {name}: {scores}", flush=True)
        timed = others[:TIMED]
        together = microseconds(lambda some=timed, by=model: by.embed(some), len(timed))  # type: ignore[misc]
        alone = microseconds(
            lambda some=timed[:100], by=model: [by.embed([text]) for text in some],  # type: ignore[misc]
            100,
        )
        read = microseconds(lambda some=timed, by=model: by.reader.read(some), len(timed))  # type: ignore[misc]
        print(
            f"  CPU us a text: {alone:.0f} one at a time, {together:.0f} together, of which {read:.0f} to "
            "clean and tokenise",
            flush=True,
        )


if __name__ == "__main__":
    main()
