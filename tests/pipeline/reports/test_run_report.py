import json
import os
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console as RichConsole

from pipeline.config.load import load_config
from pipeline.console import Console
from pipeline.reports import assessment
from pipeline.reports import run_report as report_module
from pipeline.reports.run_report import config_of_run, link, report
from preprocess.errors import UserError
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
FORMER = Path(__file__).parents[2] / "fixtures" / "version-0.1" / "finished"
SUMS = dict.fromkeys(("documents", "words", "tokens", "characters", "text_bytes"), 4)
MODEL = {"recurrent": {"kind": "lstm", "layers": 1, "hidden": 4, "projection": 2}}
TRAINED = {
    "model": MODEL,
    "vocabulary": 9,
    "parameters": 10,
    "steps": 2,
    "tokens": 80,
    "passes": 0.5,
}
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
    records = [*writer.close(), *write_index(folder, [(0, 0)])]
    details = {"layers": 2, "dim": 4, "dtype": "float16", "unit": "token", "model": "m"}
    stage(output, "embed", details, records)


def finish(output, held_out=PERPLEXITY, texts=TEXTS):
    """The folders of a finished run."""
    documents = {"read": 4, "written": 4, "replaced": 0, "dropped": {}}
    splits = dict.fromkeys(("train", "valid", "test"), SUMS)
    sources = [{"name": "corpus", "license": None, "filters": {}, **SUMS}]
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
    assert "per token | 12.3 | 23.4 | 17.0" in text
    assert "per word | 12.3 | 23.4 | 17.0" in text
    assert "1.482 bits per byte of text" in text
    assert "bank: nearest in layer 0: " in text
    assert "[bank] of" in text
    assert text.count("nearest in this use: ") == 2
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


def test_words_that_hardly_occur_are_reported(tmp_path):
    finish(str(tmp_path))
    text = shown(tmp_path, "report.words=[nonsense,money]")
    assert "nonsense: does not occur in the part of the vector cache that was read" in text
    assert "money: occurs once in the part of the vector cache that was read" in text


@pytest.mark.parametrize("texts", [[], TEXTS[:1], [""]])
def test_tiny_cache_is_no_mistake(tmp_path, texts):
    finish(str(tmp_path), texts=texts)
    text = shown(tmp_path, "report.words=null")
    assert "no word is frequent enough in the vector cache to show its uses" in text
    assert ("VectorCache.open" in text) == bool(texts)


def test_empty_held_out_split_is_reported(tmp_path):
    finish(str(tmp_path), held_out=None)
    assert "no perplexity: the valid split is empty" in shown(tmp_path)
    assert "The valid split is empty" in (tmp_path / "report.html").read_text()


def test_unfinished_stage_is_reported(tmp_path):
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


def test_what_needs_attention_is_shown_on_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(assessment, "CHANCE", 0.0)
    finish(str(tmp_path))
    text = shown(tmp_path)
    assert "Directions: Perplexity of the backward direction is 1.90 times" in text
    # What is good, or only a note, stands on the page alone.
    assert "Best step" not in text
    assert "Best step" in (tmp_path / "report.html").read_text()


def test_the_page_says_when_training_ended(tmp_path):
    finish(str(tmp_path))
    os.utime(tmp_path / "train/manifest.json", ns=(0, 1_700_000_000 * 10**9))
    shown(tmp_path)
    assert "2023-11-14 22:13 UTC" in (tmp_path / "report.html").read_text()


def test_the_page_names_tokenizer_and_scripts(tmp_path):
    finish(str(tmp_path))
    (tmp_path / "export/tokenizer.json").write_text('{"kind": "char"}')
    (tmp_path / "prepare/stats.json").write_text('{"scripts": {"Hebrew": 3, "Latin": 1}}')
    shown(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "char, vocabulary 9" in page
    assert "Hebrew 75.0%, Latin 25.0%" in page


# Links


def test_a_page_that_does_not_exist_is_not_linked(tmp_path):
    finish(str(tmp_path))
    shown(tmp_path)
    assert "<a " not in (tmp_path / "report.html").read_text()
    (tmp_path / "prepare/corpus.html").write_text("")
    shown(tmp_path)
    assert '<a href="prepare/corpus.html">' in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("folder", "page", "expected"),
    [
        ("run", "run/prepare/corpus.html", "prepare/corpus.html"),
        ("run", "other run/pre:pare/corpus.html", "../other%20run/pre%3Apare/corpus.html"),
        ("a/b", "a/corpus.html", "../corpus.html"),
    ],
)
def test_links_are_relative(folder, page, expected, tmp_path):
    (tmp_path / page).parent.mkdir(parents=True)
    (tmp_path / page).write_text("")
    assert link(str(tmp_path / folder), str(tmp_path / page)) == expected
    assert link(f"file://{tmp_path}/{folder}", str(tmp_path / page)) == expected


def test_links_stay_within_a_store(tmp_path):
    page = "memory://test-links/prepare/corpus.html"
    storage.write_bytes(page, b"")
    try:
        assert link("memory://test-links", page) == "prepare/corpus.html"
        assert link("memory://another/run", page) is None
        assert link(str(tmp_path), page) is None
    finally:
        storage.remove_tree("memory://test-links")


# A report from a run folder alone


@pytest.fixture
def former(tmp_path):
    """A run of version 0.1 in another place than it was made."""
    return Path(shutil.copytree(FORMER, tmp_path / "moved"))


def test_the_report_of_a_former_version_is_made_again(former, markup):
    (former / "report.html").unlink()
    report(config_of_run(str(former)), Console(RichConsole(file=StringIO())))
    page = markup((former / "report.html").read_text())
    assert page.facts["Folder"] == str(former)
    assert page.facts["Tokenizer"] == "sentencepiece, vocabulary 320"
    assert page.facts["Scripts"].startswith("Latin 74.5%, Cyrillic 11.7%")
    assert page.rows("Perplexity")[1] == ["per token", "54.6", "49.0", "51.7"]
    assert [one["href"] for one in page.all("a")] == ["prepare/corpus.html"]


def test_the_settings_are_those_of_the_last_finished_stage(former, monkeypatch):
    monkeypatch.chdir(former.parent)
    path = former / "evaluate/config.yaml"
    path.write_text(path.read_text().replace("split: valid  #", "split: test  #"))
    for stage in ("embed", "export"):
        (former / stage / "manifest.json").unlink()
    config = config_of_run("moved")
    assert config.run.output == str(former)
    assert config.evaluate.split == "test"


def test_settings_are_read_from_a_store(former):
    output = "memory://test-settings"
    try:
        for name in ("manifest.json", "config.yaml"):
            data = (former / "tokenizer" / name).read_bytes()
            storage.write_bytes(f"{output}/tokenizer/{name}", data)
        assert config_of_run(output).run.output == output
    finally:
        storage.remove_tree(output)


def test_a_folder_without_a_finished_stage_is_reported(tmp_path):
    with pytest.raises(UserError) as caught:
        config_of_run(str(tmp_path / "nothing"))
    assert str(caught.value) == (
        f"{tmp_path}/nothing holds no finished stage; name another run folder, or see "
        f"`biloom status {tmp_path}/nothing`"
    )
