import json
from io import StringIO

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console as RichConsole

from pipeline.config.load import load_config
from pipeline.console import Console
from pipeline.reports import run_report as report_module
from pipeline.reports.run_report import report
from preprocess.files import storage
from preprocess.files.manifest import Manifest, ManifestError, write_manifest
from preprocess.vectors import neighbours as neighbours_module
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.index import write_index
from preprocess.vectors.shard import VectorShardWriter

TEXTS = [
    "the bank of the river",
    "a bank of money here",
    "הבנק של הנהר כאן",
    "the bank of the river again and again and again, so that this is a line",
]
SUMS = dict.fromkeys(("documents", "words", "tokens", "characters", "text_bytes"), 4)
TRAINED = {"parameters": 10, "steps": 2, "tokens": 80, "passes": 0.5}
PERPLEXITY = {
    f"{way}_{unit}perplexity": value
    for way, value in (("forward", 12.34), ("backward", 23.45), ("average", 17.01))
    for unit in ("", "word_")
}


def stage(output, name, details, files=()):
    manifest = Manifest(name, 2, "", "", "", {}, tuple(files), details)
    write_manifest(storage.join(output, name), manifest)


def embed(output, texts):
    folder = storage.join(output, "embed")
    random = np.random.default_rng(0)
    with VectorShardWriter(folder, (0, 0), 2, 4, "float16") as writer:
        for text in texts:
            words = [f"▁{word}" for word in text.split()]
            writer.add(text, words, random.standard_normal((2, len(words), 4)))
    records = [*writer.close(), write_index(folder, [(0, 0)])]
    details = {"layers": 2, "dim": 4, "dtype": "float16", "unit": "token", "model": "m"}
    stage(output, "embed", details, records)


def finish(output, held_out=PERPLEXITY, texts=TEXTS):
    """The folders of a finished run."""
    documents = {"read": 4, "written": 4, "replaced": 0, "dropped": {}}
    splits = dict.fromkeys(("train", "valid", "test"), SUMS)
    sources = [{"name": "corpus", "license": None, **SUMS}]
    stage(output, "prepare", {"splits": splits, "sources": sources, "documents": documents})
    stage(output, "train", TRAINED)
    batch = {"learning_rate": 0.1, "tokens_per_second": 9.0, "gradient_norm": 1.0}
    row = {"step": 1, "loss_forward": 2.0, "loss_backward": float("nan"), **batch}
    storage.write_bytes(storage.join(output, "train/metrics.jsonl"), json.dumps(row).encode())
    some = {"bits_per_byte": 1.482, **held_out, "tokens": 77} if held_out else {"tokens": 0}
    stage(output, "evaluate", {"split": "valid", **some})
    stage(output, "export", {})
    embed(output, texts)


def shown(output, *overrides, **terminal):
    config = load_config(["quickstart"], [f"run.output={output}", *overrides])
    printed = StringIO()
    rich = RichConsole(file=printed, highlight=False, **({"soft_wrap": True} | terminal))
    report(config, Console(rich))
    return printed.getvalue()


def test_report_shows_perplexity_words_and_where_everything_is(tmp_path):
    finish(str(tmp_path))
    lines = shown(tmp_path, "report.words=[bank]").splitlines()
    text = "\n".join(lines)
    assert "77 tokens of the valid split, full vocabulary" in text
    assert "a token | 12.3 | 23.4 | 17.0" in text
    assert "a word | 12.3 | 23.4 | 17.0" in text
    assert "1.482 bits a byte of text" in text
    assert "bank: as one vector (layer 0) near " in text
    assert "[bank] of" in text
    assert text.count("in this use near ") == 2
    assert f"model    {tmp_path}/export" in text
    assert f"vectors  {tmp_path}/embed  (4 texts)" in text
    assert lines[0].split() == ["report", f"{tmp_path}/report.html"]


def test_lines_of_python_work_as_they_are_shown(tmp_path):
    finish(str(tmp_path))
    text = shown(tmp_path)
    (line,) = [line for line in text.splitlines() if line.startswith("  VectorCache.open")]
    code, shape = line.split("  # ")
    assert str(eval(code, {"VectorCache": VectorCache}).shape) == shape
    assert "from biloom import BiLM, VectorCache" in text


def test_page_is_written_and_the_same_run_writes_the_same_page(tmp_path):
    finish(str(tmp_path))
    shown(tmp_path)
    first = (tmp_path / "report.html").read_bytes()
    shown(tmp_path)
    assert b"<svg" in first
    assert first == (tmp_path / "report.html").read_bytes()


def test_report_of_a_url_lies_there():
    output = "memory://test-report"
    try:
        finish(output)
        assert f"{output}/report.html" in shown(output, "runner.options.mode=in_memory")
        assert storage.read_bytes(f"{output}/report.html").startswith(b"<!doctype html>")
    finally:
        storage.remove_tree(output)


def test_words_that_hardly_occur_are_told(tmp_path):
    finish(str(tmp_path))
    text = shown(tmp_path, "report.words=[nonsense,money]")
    assert "nonsense: nowhere in the part of the vector cache that was read" in text
    assert "money: once in the part of the vector cache that was read" in text


@pytest.mark.parametrize("texts", [[], TEXTS[:1], [""]])
def test_tiny_cache_is_no_mistake(tmp_path, texts):
    finish(str(tmp_path), texts=texts)
    text = shown(tmp_path, "report.words=null")
    assert "no word is frequent enough in the vector cache to show its uses" in text
    assert ("VectorCache.open" in text) == bool(texts)


def test_empty_held_out_split_is_told(tmp_path):
    finish(str(tmp_path), held_out=None)
    assert "no perplexity: the valid split is empty" in shown(tmp_path)
    assert "The valid split is empty" in (tmp_path / "report.html").read_text()


def test_unfinished_stage_is_told(tmp_path):
    finish(str(tmp_path))
    (tmp_path / "evaluate/manifest.json").unlink()
    with pytest.raises(ManifestError, match=r"holds no finished 'evaluate'.*biloom evaluate"):
        shown(tmp_path)


def test_terminal_shows_a_passage_on_one_line_whatever_its_width(tmp_path):
    wide = [f"[red]{'語' * 30} bank {'字' * 30}{n}" for n in range(4)]
    finish(str(tmp_path), texts=wide)
    for width in (60, 100):
        terminal = {"force_terminal": True, "width": width, "soft_wrap": False}
        lines = shown(tmp_path, "report.words=[bank]", color_system=None, **terminal).splitlines()
        passages = [line for line in lines if line.startswith("    …")]
        assert len(passages) == 2
        for line in passages:
            assert "語 bank 字" in line
            assert line.endswith("…")
            assert width - 3 <= cell_len(line) <= width


def test_where_no_asked_word_occurs_words_are_chosen_from_the_text(tmp_path, monkeypatch):
    finish(str(tmp_path))
    asked = []

    def word_uses(cache, words, neighbours):
        asked.append(words)
        return neighbours_module.word_uses(cache, words, neighbours)

    monkeypatch.setattr(report_module, "word_uses", word_uses)
    shown(tmp_path, "report.words=[nonsense]")
    assert asked == [("nonsense",), None]
    asked.clear()
    shown(tmp_path, "report.words=[bank]")
    assert asked == [("bank",)]
