"""Speed of ONNX Runtime beside the eager embedder, on one thread.

    python benchmarks/onnx_speed.py [--text FILE] [--texts N] [--turns N]

Models with random weights: LSTM with 2 layers x 2 directions, 512 hidden, 128 projected, which reads ids; the
same with GRU, 256 wide; and the LSTM with a character CNN (16 dimensions a character, 50 characters, filters
[1, 32] to [6, 512]), of which each turn begins without any known word. The texts are the first N lines with
words of FILE (default: 150 of the validation set of WikiText-2 in $BILOOM_TEST_DATA), cut to 60 words. They
are tokenised beforehand. Both runtimes compute all layers: of one text at a time, and of batches of 32 texts
of similar length. Figures are tokens per CPU-second, medians over the turns; `ratio` is ONNX Runtime / eager,
the median of the ratios of a turn. `onnx_mb` is the size of the file.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.portable.feeds import feeds_of_batch
from lightning_modules.portable.onnx_file import onnx_file
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.vocabulary import Vocabulary
from preprocess.tokenizers.words import WordTokenizer

LSTM = {"kind": "lstm", "hidden": 512, "projection": 128}
FILTERS = [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512]]
MODELS: dict[str, dict[str, Any]] = {
    "lstm": {"recurrent": LSTM},
    "gru": {"recurrent": {"kind": "gru", "hidden": 256}},
    "characters": {"recurrent": LSTM, "input": {"kind": "char_cnn", "filters": FILTERS}},
}
LONGEST, ROWS = 60, 32


def read_texts(path: Path, number: int) -> list[list[str]]:
    """Return the first words of the first lines that have any."""
    rows = (line.split()[:LONGEST] for line in path.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row][:number]


def model_of(settings: dict[str, Any], words: list[str]) -> BiLM:
    torch.manual_seed(0)
    tokenizer = WordTokenizer(Vocabulary.of_words(words))
    config = ModelConfig.model_validate(settings | {"head": {"kind": "softmax"}})
    network = BiLMNetwork(config, tokenizer.vocabulary, head=False)
    return BiLM(network, tokenizer, CleaningConfig(unicode="none"), "bos_eos")


def cpu_seconds(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def measure(settings: dict[str, Any], texts: list[list[str]], turns: int) -> dict[str, float]:
    """Return the figures of one model."""
    words = [*dict.fromkeys(word for text in texts for word in text)]
    count = sum(map(len, texts))
    data = onnx_file(model_of(settings, words))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options)
    figures = {"onnx_mb": len(data) / 1e6}
    for name, rows in (("one", 1), ("batch", ROWS)):
        speeds: dict[str, list[float]] = {"eager": [], "onnx": []}
        for _ in range(turns):
            model = model_of(settings, words)
            ordered = sorted(texts, key=len)
            starts = range(0, len(ordered), rows)
            batches = [model.batch(ordered[start : start + rows], "token") for start in starts]
            feeds = [feeds_of_batch(model, batch) for batch in batches]
            eager, onnx = model.encoder.frozen_layers, session.run
            calls: dict[str, Callable[[], object]] = {
                "eager": lambda: [eager(b.ids, b.lengths, b.spellings) for b in batches],  # noqa: B023
                "onnx": lambda: [onnx(None, feed) for feed in feeds],  # noqa: B023
            }
            for runtime, call in calls.items():
                speeds[runtime].append(count / cpu_seconds(call))
        ratios = [b / a for a, b in zip(speeds["eager"], speeds["onnx"], strict=True)]
        figures |= {f"{name}_{kind}": statistics.median(of) for kind, of in speeds.items()}
        figures[f"{name}_ratio"] = statistics.median(ratios)
    return {name: float(f"{value:.3g}") for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path)
    parser.add_argument("--texts", type=int, default=150)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = os.environ.get("BILOOM_TEST_DATA", ".")
    path = options.text or Path(data) / "lm" / "wikitext-2" / "wiki.valid.tokens"
    texts = read_texts(path, options.texts)
    figures = {}
    for name, settings in MODELS.items():
        figures[name] = measure(settings, texts, options.turns)
        print(f"{name}: {figures[name]}", flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
