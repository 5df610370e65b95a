"""Whether the gradient representation helps to classify texts, beside vectors and a control.

    python benchmarks/gradients.py MODEL FILE [--folds 5] [--seeds 3] [--path total]

MODEL is a model folder with its output layer. FILE is any file that `biloom classify train` reads. Each text is represented by the mean
over its tokens, all layers concatenated and standardised, and classified by logistic regression; the
figures are accuracies in percent over all folds, averaged over seeds, which shuffle the folds.

"both, control" has the vectors of a text beside the gradients of another text, so it has as many numbers
as "both": what it lacks is what the gradients know of the text. The last line is JSON.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from biloom import BiLM
from preprocess.reading.labelled.options import LabelledTextOptions
from preprocess.reading.labelled.texts import read_labelled_texts

STRENGTHS = (0.001, 0.01, 0.1)
"""Inverse strengths of the penalty; the best one of each representation is taken, by the same folds."""


def represented(model: BiLM, texts: list[str], **kind: Any) -> npt.NDArray[np.float64]:
    found = model.iter_embed(texts, unit="sentence", pooling="mean", layers="concat", **kind)
    rows = [text.vectors[0].mean(0) if text.vectors.size else None for text in found]
    zero = np.zeros(model.dim * model.depth)
    return np.array([zero if row is None else row for row in rows], np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("file")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--path", default="total", choices=("total", "upward"))
    options = parser.parse_args()
    read = read_labelled_texts(options.file, LabelledTextOptions())
    texts = [one.text for one in read.examples]
    labels = [one.labels[0] for one in read.examples]
    model = BiLM.from_pretrained(options.model)
    start = time.process_time()
    vectors = represented(model, texts)
    middle = time.process_time()
    gradients = represented(model, texts, kind="gradient", path=options.path)
    seconds = {"vectors": middle - start, "gradients": time.process_time() - middle}
    other = np.random.default_rng(0).permutation(len(texts))
    kinds = {
        "vectors": vectors,
        "gradients": gradients,
        "both": np.concatenate([vectors, gradients], 1),
        "both, control": np.concatenate([vectors, gradients[other]], 1),
    }
    found: dict[str, list[float]] = {}
    for name, x in kinds.items():
        scores = []
        for strength in STRENGTHS:
            of_seeds = []
            for seed in range(options.seeds):
                folds = StratifiedKFold(options.folds, shuffle=True, random_state=seed)
                fit = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
                predicted = cross_val_predict(fit, x, labels, cv=folds)
                of_seeds.append(100 * float(np.mean(predicted == np.array(labels))))
            scores.append(of_seeds)
        best = max(range(len(STRENGTHS)), key=lambda n: sum(scores[n]))
        found[name] = scores[best]
        spread = np.ptp(found[name])
        print(
            f"{name:<14} {np.mean(found[name]):5.1f}  (seeds differ by {spread:.1f}; C {STRENGTHS[best]})",
            flush=True,
        )
    gain = np.array(found["both"]) - np.array(found["both, control"])
    print(f"both - control {gain.mean():5.1f}  (least {gain.min():.1f}, most {gain.max():.1f})")
    print(json.dumps({"texts": len(texts), "seconds": seconds, "accuracy": found}))


if __name__ == "__main__":
    main()
