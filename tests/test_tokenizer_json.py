"""A model with a tokenizer.json: from raw text to vectors, scores and generated text."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from biloom import BiLM, VectorCache
from pipeline.cli import main
from preprocess.files.manifest import read_manifest
from preprocess.shards.format import Corpus
from preprocess.tokenizers.huggingface.tokenizer import HuggingFaceTokenizer
from tests.tokenizer_files import LINES, tokenizer_file

CONFIG = """\
tokenizer: {kind: huggingface, file: FILE}
prepare: {input: TEXT, deduplicate: false, valid_fraction: 0.2}
model: {recurrent: {hidden: 6, projection: 3}, head: {kind: softmax}}
train: {rows: 2, unroll: 5, steps: 4, warmup_steps: 2, compile: "off", device: cpu, data_workers: 0,
        evaluate_steps: 4, log_steps: 2}
embed: {input: TEXT, unit: word}
tracking: {wandb: "off"}
"""


@pytest.fixture(scope="module", params=["roberta", "bert"])
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    root = tmp_path_factory.mktemp(request.param)
    (root / "tokenizer.json").write_bytes(tokenizer_file(request.param))
    (root / "text.txt").write_text("\n".join([*LINES * 4, "犬 <s> [MASK] 𒀀"]), encoding="utf-8")
    config = CONFIG.replace("FILE", f"{root}/tokenizer.json").replace("TEXT", f"{root}/text.txt")
    (root / "run.yaml").write_text(config)
    assert main(["run", f"{root}/run.yaml", f"run.output={root}/out"]) == 0
    return root / "out"


def test_the_shards_hold_the_ids_of_the_library(output: Path) -> None:
    library = Tokenizer.from_file(str(output.parent / "tokenizer.json"))
    corpus = Corpus.open(str(output / "prepare"))
    tokenizer = HuggingFaceTokenizer((output / "tokenizer" / "huggingface.json").read_bytes())
    found = []
    for split in ("train", "valid"):
        for shard in corpus.shards(split):
            ends = np.cumsum(shard.lengths)[:-1]
            found += [tokenizer.file_ids(ids).tolist() for ids in np.split(shard.ids, ends)]
    lines = (output.parent / "text.txt").read_text(encoding="utf-8").splitlines()
    expected = [library.encode(line, add_special_tokens=False).ids for line in lines]
    assert sorted(found) == sorted(expected)
    assert read_manifest(str(output / "prepare")).details["vocabulary"] == tokenizer.vocabulary


def test_the_model_folder_holds_the_file(output: Path, tmp_path: Path) -> None:
    folder = output / "export"
    assert (folder / "huggingface.json").read_bytes() == (
        output.parent / "tokenizer.json"
    ).read_bytes()
    for stage in ("tokenizer", "export"):
        assert main(["check", str(output / stage)]) == 0
        assert main(["inspect", str(output / stage)]) == 0


def test_texts_are_embedded_by_word_and_token(output: Path) -> None:
    library = Tokenizer.from_file(str(output.parent / "tokenizer.json"))
    model = BiLM.from_pretrained(output / "export")
    text = "größe the 猫が cat, 犬"
    [tokens] = model.embed([text])
    [words] = model.embed([text], unit="word", pooling="mean")
    encoded = library.encode(text, add_special_tokens=False)
    assert [(token.start, token.end) for token in tokens.tokens] == encoded.offsets
    assert [word.spelling for word in words.tokens] == text.split()
    for number, word in enumerate(words.tokens):
        own = [
            index
            for index, (start, end) in enumerate(encoded.offsets)
            if max(start, word.start) < min(end, word.end) or start == end == word.start
        ]
        expected = tokens.vectors[:, own].mean(1)
        np.testing.assert_allclose(words.vectors[:, number], expected, rtol=1e-4, atol=1e-5)
    [of_list] = model.embed([text.split()], unit="word", pooling="mean")
    np.testing.assert_allclose(of_list.vectors, words.vectors, rtol=1e-4, atol=1e-5)
    cache = VectorCache.open(output / "embed")
    assert cache[LINES[0]].shape[1] == len(LINES[0].split())


def test_texts_are_scored_generated_and_explained(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = Tokenizer.from_file(str(output.parent / "tokenizer.json"))
    text = output.parent / "text.txt"
    model = f"--model={output}/export"
    assert main(["score", str(text), model]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    lines = text.read_text(encoding="utf-8").splitlines()
    encoded = [library.encode(line, add_special_tokens=False).ids for line in lines]
    assert [int(row[0]) for row in rows] == [len(ids) + 1 for ids in encoded]
    assert main(["generate", model, "--prompt", "the cat", "--tokens", "4"]) == 0
    assert capsys.readouterr().out.startswith("the cat")
    assert main(["explain", f"{output}/export", "--text", "the 犬 cat", "by=token"]) == 0
    assert "犬" in capsys.readouterr().out
    assert main(["trace", f"{output}/prepare", "--text", "cat sat"]) == 0
    assert "text.txt" in capsys.readouterr().out
