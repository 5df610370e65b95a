"""The example in JavaScript gives the vectors of `BiLM.embed`.

They need node, and onnxruntime-node or onnxruntime-web where node finds it (NODE_PATH).
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.portable.folder import exported_files
from preprocess.config import CharConfig, SentencePieceConfig
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.load import Tokenizer
from preprocess.tokenizers.subwords import train_sentencepiece
from tests.exportable_models import CNN, LSTM, make_model

NODE, WEB = "onnxruntime-node", "onnxruntime-web"
EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_node.cjs"
LINES = [
    "the cat sat on the mat, and the dog",
    "größe слово猫 座った",
    "a b c d e f g k n u 0 1 4",
] * 20
TEXTS = [
    *[
        "w1 w2 w50 unknown wwwwwwwwwwwwwwwwwwww größe",
        "the  cat\tsat <s> <0x41> \u2581x",
        "",
        "猫",
        "w3 𒀀b ꙮ",
    ],
    *["<bos> w7 <eos>", "a\x1cb\x85c\u200bd\ufeff e\u0301", "the dog " * 40],
]


def node_modules(package: str = NODE) -> dict[str, str]:
    """Return the environment in which node finds a package; skip the test without it."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    env = {"PATH": os.environ["PATH"], "NODE_PATH": os.environ.get("NODE_PATH", "")}
    done = subprocess.run([node, "-e", f"require('{package}')"], env=env, check=False, capture_output=True)  # fmt: skip
    if done.returncode:
        pytest.skip(f"node has no {package}; install it with npm and set NODE_PATH")
    return env


def run(
    env: dict[str, str], folder: Path, texts: list[str], *options: str, example: Path = EXAMPLE
) -> list[Any]:
    done = subprocess.run(
        ["node", example, folder, *options], input="".join(f"{text}\n" for text in texts),
        env=env, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def subword_model(tokenizer: Tokenizer, **settings: Any) -> BiLM:
    torch.manual_seed(5)
    config = ModelConfig.model_validate({"recurrent": LSTM, **settings})
    network = BiLMNetwork(config, tokenizer.vocabulary, (20, 50), head=False)
    return BiLM(network, tokenizer, CleaningConfig(), "eos")


def unigram() -> Tokenizer:
    return train_sentencepiece(SentencePieceConfig(vocabulary=340), LINES)


MODELS = {
    "words": lambda: make_model("gru"),
    "characters": lambda: make_model("characters"),
    "words and characters": lambda: make_model("words and characters"),
    "unigram": lambda: subword_model(unigram()),
    "unigram, characters": lambda: subword_model(unigram(), input=CNN),
    "bpe": lambda: subword_model(
        train_sentencepiece(SentencePieceConfig(model="bpe", vocabulary=340), LINES)
    ),
    "char": lambda: subword_model(train_sentencepiece(CharConfig(), LINES), directions="forward"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_javascript_gives_the_vectors_of_python(name: str, tmp_path: Path) -> None:
    env = node_modules()
    model = MODELS[name]()
    with_stream = name in ("words", "unigram, characters")
    made = exported_files(model, CleaningConfig(), with_stream, {})
    for file, data in made.files.items():
        (tmp_path / file).write_bytes(data)
    for options in ([], ["--parts", "5"])[: 1 + with_stream]:
        for answer, embedding in zip(
            run(env, tmp_path, TEXTS, *options), model.embed(TEXTS), strict=True
        ):
            assert answer["ids"] == [token.id for token in embedding.tokens]
            if not answer["ids"]:
                continue
            width = model.network.direction_width if options else model.dim
            found = np.array(answer["layers"], np.float32)
            np.testing.assert_allclose(found, embedding.vectors[..., :width], rtol=0, atol=2e-6)


@pytest.mark.slow
def test_the_runtime_of_browsers_gives_the_same_vectors(tmp_path: Path) -> None:
    env = node_modules(WEB)
    model = make_model("words and characters")
    for file, data in exported_files(model, CleaningConfig(), False, {}).files.items():
        (tmp_path / file).write_bytes(data)
    script = EXAMPLE.read_text(encoding="utf-8").replace(f'require("{NODE}")', f'require("{WEB}")')
    (tmp_path / "web.cjs").write_text(script, encoding="utf-8")
    found = run(env, tmp_path, TEXTS[:2], example=tmp_path / "web.cjs")
    for answer, embedding in zip(found, model.embed(TEXTS[:2]), strict=True):
        layers = np.array(answer["layers"], np.float32)
        np.testing.assert_allclose(layers, embedding.vectors, rtol=0, atol=2e-6)
