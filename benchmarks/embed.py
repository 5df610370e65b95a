"""Speed of embedding on one thread, and the errors of models in 16 bits and of int8 vectors.

    python benchmarks/embed.py [--text FILE] [--peer-python PYTHON]

Config A: character CNN (16 dimensions a character, 50 characters, filters [1, 32] to [7, 1024], one
highway), LSTM with 2 layers x 2 directions, 1024 hidden, 128 projected, random weights. The text is
the first 30,000 words of FILE (default: the validation set of WikiText-2 in $BILOOM_TEST_DATA), one
text per line. Each turn creates the model anew, so that no word vector is cached.
`config_a_over_306` is tokens per CPU-second / 306 (AllenNLP on a machine with 72 GFLOP/s per thread)
x 72 / the GFLOP/s of a matrix product on this thread, measured before and after each turn. Figures are
medians over the turns.

Errors are relative, |vectors - float32 vectors| / |float32 vectors| over the first 60 lines: of the model
after `to(dtype)`, and with `matmul_dtype`. `batch_..._error` is the largest difference, relative to the largest
value, between vectors of batches of 8,192 and of 64 tokens. `--only errors` measures nothing else.

With --peer-python, a Python that has simple_elmo (with tensorflow-cpu 2.15, pandas 2 and numpy 1)
embeds the first 60 lines with the same weights, without its warm-up.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biloom import BiLM
from lightning_modules.allocator import keep_memory
from lightning_modules.config import ModelConfig
from lightning_modules.models.elmo_options import write_options
from lightning_modules.models.elmo_weights import write_weights
from lightning_modules.nn.bilm import BiLMNetwork
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.vocabulary import Vocabulary
from preprocess.tokenizers.words import WordTokenizer
from preprocess.vectors.codec import Codec

CONFIG_A = ModelConfig.model_validate(
    {
        "input": {"kind": "char_cnn", "highway": 1},
        "recurrent": {"kind": "lstm", "hidden": 1024, "projection": 128, "forget_bias": 1.0},
        "head": {"kind": "softmax"},
    }
)
WORDS = 30_000
DIM = 128
PEER_TEXTS = 60
"""With more texts, simple_elmo runs out of memory."""

PEER = """
import sys, time, json
from simple_elmo import ElmoModel
model = ElmoModel()
model.load(sys.argv[1], max_batch_size=32)
texts = json.load(open(sys.argv[2]))
model.get_elmo_vectors(texts[:2], layers="all")
begin = time.process_time()
model.get_elmo_vectors(texts, layers="all", warmup=False)
print(json.dumps(time.process_time() - begin))
"""


def read_texts(path: Path) -> list[list[str]]:
    """Return the first `WORDS` words of a file, as one list per line."""
    texts, left = [], WORDS
    for line in path.read_text(encoding="utf-8").splitlines():
        if words := line.split()[:left]:
            texts.append(words)
            left -= len(words)
    return texts


def fresh() -> BiLM:
    torch.manual_seed(0)
    tokenizer = WordTokenizer(Vocabulary.of_words([]))
    network = BiLMNetwork(CONFIG_A, tokenizer.vocabulary, head=False)
    return BiLM(network, tokenizer, CleaningConfig(unicode="none"), "bos_eos")


def cpu_seconds(call: Callable[..., Any], *arguments: Any) -> float:
    begin = time.process_time()
    call(*arguments)
    return time.process_time() - begin


def sgemm() -> float:
    """Return the GFLOP/s of a matrix product on one thread."""
    a = torch.rand(1024, 1024)
    a @ a
    return 8 * 2 * 1024**3 / cpu_seconds(lambda: [a @ a for _ in range(8)]) / 1e9


def config_a(texts: list[list[str]], turns: int) -> dict[str, float]:
    count = sum(map(len, texts))
    speeds: dict[str, list[float]] = {"float32": [], "known words": []}
    ratios: list[float] = []
    for _ in range(turns):
        model = fresh()
        before = sgemm()
        speeds["float32"].append(count / cpu_seconds(model.embed, texts))
        ratios.append(speeds["float32"][-1] / 306 * 72 / ((before + sgemm()) / 2))
        speeds["known words"].append(count / cpu_seconds(model.embed, texts))
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    for name, speed in medians.items():
        print(f"config A, {name}: {speed:,.0f} tokens per CPU-second")
    exact = fresh().embed(texts[:20])
    codec = Codec("int8", DIM)
    values = np.concatenate([a.vectors[-1, :, :DIM] for a in exact])
    stored = codec.decode(codec.encode(values), values.shape)
    return {
        "config_a_tokens_per_cpu_s": medians["float32"],
        "config_a_over_306": statistics.median(ratios),
        "known_words_tokens_per_cpu_s": medians["known words"],
        "int8_stored_relative_error": float(
            np.linalg.norm(stored - values) / np.linalg.norm(values)
        ),
    }


def peer(texts: list[list[str]], python: str) -> dict[str, float]:
    """Measure simple_elmo with the same weights and words."""
    count = sum(map(len, texts))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "options.json").write_bytes(write_options(CONFIG_A))
        weights = fresh().network.state_dict()
        Path(folder, "model.hdf5").write_bytes(write_weights(weights, CONFIG_A))
        Path(folder, "texts.json").write_text(json.dumps([" ".join(text) for text in texts]))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
        command = [python, "-c", PEER, folder, f"{folder}/texts.json"]
        done = subprocess.run(
            command, check=True, env=environment, stdout=subprocess.PIPE, text=True
        )
    speed = count / json.loads(done.stdout.splitlines()[-1])
    print(f"simple_elmo: {speed:,.0f} tokens per CPU-second")
    return {"simple_elmo_tokens_per_cpu_s": speed}


def errors(texts: list[list[str]]) -> dict[str, float]:
    """Return the errors of models in 16 bits, and how far vectors depend on their batch."""

    def all_vectors(model: BiLM, batch_tokens: int = 8192) -> np.ndarray[Any, Any]:
        found = model.embed(texts, batch_tokens)
        return np.concatenate([one.vectors for one in found], 1).astype(np.float64)

    exact = all_vectors(fresh())
    models = {"float32": fresh(), "bf16_products": fresh()}
    models["bf16_products"].matmul_dtype = torch.bfloat16
    models |= {name: fresh().to(getattr(torch, name)) for name in ("bfloat16", "float16")}
    figures = {}
    for name, model in models.items():
        found = all_vectors(model)
        if name != "float32":
            figures[f"{name}_error"] = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        other = np.abs(all_vectors(model, 64) - found).max() / np.abs(exact).max()
        figures[f"batch_{name}_error"] = other
    return {name: float(f"{value:.3g}") for name, value in figures.items()}


def memory(texts: list[list[str]]) -> dict[str, float]:
    """Measure the peak memory of embedding a stream of texts, and one three times as long."""
    model = fresh()
    peaks = []
    for times in (30, 90):
        for _ in model.iter_embed(text for _ in range(times) for text in texts[:60]):
            pass
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(f"peak memory: {peaks[0]:,.0f} MB, with three times the text {peaks[1]:,.0f} MB")
    return {"peak_mb": peaks[0], "peak_mb_of_three_times": peaks[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peer-python")
    parser.add_argument("--only", choices=["errors"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = os.environ.get("BILOOM_TEST_DATA", ".")
    texts = read_texts(options.text or Path(data) / "lm" / "wikitext-2" / "wiki.valid.tokens")
    if options.only:
        print(json.dumps(errors(texts[:60])))
        return
    with keep_memory(large=False):
        figures = memory(texts)
        figures |= config_a(texts, options.turns)
    if options.peer_python:
        figures |= peer(texts[:PEER_TEXTS], options.peer_python)
    else:
        print("simple_elmo was not measured (see --peer-python)")
    figures = {name: round(value, 4) for name, value in figures.items()} | errors(texts[:60])
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
