"""Size, loading time, speed and error of model folders with different export options.

    python benchmarks/model_folder.py [--text FILE]

The network is config A of benchmarks/embed.py with random weights, a vocabulary of 12,000 words and
an output layer. It embeds the first 6,000 words of the text on one thread. The error is the relative
root mean square difference of the top layer from that of the float32 folder.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from embed import CONFIG_A, cpu_seconds, read_texts

from biloom import BiLM
from lightning_modules.allocator import keep_memory
from lightning_modules.models.model_folder import TYPE_VECTORS, WEIGHTS, save_model
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.vectors.type_vectors import vectors_of_vocabulary
from preprocess.files.manifest import Manifest, write_manifest
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.vocabulary import Vocabulary
from preprocess.tokenizers.words import WordTokenizer

WORDS, VOCABULARY = 6000, 12_000
OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"weights": "float16"},
    "int8": {"weights": "int8"},
    "without output layer": {"head": False},
    "int8 without output layer": {"weights": "int8", "head": False},
    "with type vectors": {"type_vectors": True},
}


def write(folder: str, words: list[str], option: dict[str, Any]) -> None:
    torch.manual_seed(0)
    tokenizer = WordTokenizer(Vocabulary.of_words(words))
    network = BiLMNetwork(CONFIG_A, tokenizer.vocabulary)
    weights = dict(network.state_dict())
    if not option.get("head", True):
        weights = {name: one for name, one in weights.items() if not name.startswith("head.")}
    if option.get("type_vectors"):
        weights[TYPE_VECTORS] = vectors_of_vocabulary(network.input, tokenizer)
    saved = {
        "model": CONFIG_A.model_dump(mode="json"),
        "vocabulary": tokenizer.vocabulary,
        "cutoffs": [],
        "boundary": "bos_eos",
        "cleaning": CleaningConfig(unicode="none").model_dump(mode="json"),
        "head": option.get("head", True),
        "weights": option.get("weights", "float32"),
    }
    save_model(folder, weights, saved, tokenizer)
    write_manifest(folder, Manifest("export", 1, "", "", "", {}, (), saved))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = os.environ.get("BILOOM_TEST_DATA", ".")
    lines = read_texts(options.text or Path(data) / "lm" / "wikitext-2" / "wiki.valid.tokens")
    words = list(dict.fromkeys(word for text in lines for word in text))[:VOCABULARY]
    texts, left = [], WORDS
    for text in lines:
        if some := text[:left]:
            texts.append(some)
            left -= len(some)
    figures: dict[str, dict[str, float]] = {}
    exact: list[Any] = []
    print(f"{'':<28}{'MB':>8}{'load s':>8}{'tokens/CPU-s':>14}{'error':>9}")
    for name, option in OPTIONS.items():
        with tempfile.TemporaryDirectory() as folder, keep_memory(large=False):
            write(folder, words, option)
            begin = time.perf_counter()
            model = BiLM.from_pretrained(folder)
            load = time.perf_counter() - begin
            speed = WORDS / cpu_seconds(model.embed, texts)
            found = [one.vectors[-1] for one in model.embed(texts)]
            exact = exact or found
            apart = sum(np.square(a - b).sum() for a, b in zip(found, exact, strict=True))
            error = float(np.sqrt(apart / sum(np.square(one).sum() for one in exact)))
            size = Path(folder, WEIGHTS).stat().st_size / 1e6
        figures[name] = {"mb": size, "load_s": load, "tokens_per_cpu_s": speed, "error": error}
        print(f"{name:<28}{size:8.1f}{load:8.2f}{speed:14,.0f}{error:9.4f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
