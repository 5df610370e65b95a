"""The tokenizer stage: trained on the train split, reproducible, and measured on the corpus."""

import importlib.util
import io
import json
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import sentencepiece

from pipeline.cli import main
from preprocess.files.manifest import read_manifest
from preprocess.files.storage import open_read
from preprocess.reading import changed_inputs
from preprocess.tokenizers.load import load_tokenizer
from tests.tokenizer_files import tokenizer_file

Capture = pytest.CaptureFixture[str]
Command = Any  # of conftest.py
LINES = [f"слово{n % 37} 語{n % 11} w{n % 23} ሰ{n}" for n in range(300)]


def learn(output: Path, *overrides: str) -> dict[str, Any]:
    text = output / "text.txt"
    text.parent.mkdir(exist_ok=True)
    text.write_text("\n".join(LINES), encoding="utf-8")
    words = [f"prepare.input={text}", f"run.output={output}", *overrides]
    last = {word.partition("=")[0]: word for word in words}
    assert main(["tokenizer", *last.values()]) == 0
    return read_manifest(str(output / "tokenizer"), "tokenizer").details


def files(output: Path) -> dict[str, bytes]:
    own = ("manifest.json", "stats.json", "config.yaml", "inputs.jsonl")
    folder = (output / "tokenizer").iterdir()
    return {path.name: path.read_bytes() for path in folder if path.name not in own}


@pytest.mark.parametrize("kind", ["word", "sentencepiece", "char"])
def test_the_same_text_gives_the_same_bytes_in_any_folder(kind: str, tmp_path: Path) -> None:
    options = [f"tokenizer.kind={kind}"]
    if kind == "sentencepiece":
        options.append("tokenizer.vocabulary=320")
    for name in ("one", "two"):
        learn(tmp_path / name, *options)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    marks = [read_manifest(str(tmp_path / n / "tokenizer")).fingerprint for n in ("one", "two")]
    assert marks[0] == marks[1]


def edit(path: Path, old: str, new: str) -> None:
    """Edit a file at equal size, and give it another time."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    assert len(new) == len(old)
    path.write_text(text.replace(old, new), encoding="utf-8")
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))


@pytest.mark.parametrize("kind", ["word", "char", "sentencepiece"])
def test_an_edit_at_equal_size_is_refused_by_name(
    kind: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def open_and_note(path: str) -> BinaryIO:
        hashed.append(path)
        return open_read(path)

    monkeypatch.setattr(changed_inputs, "open_read", open_and_note)
    common = (f"tokenizer.kind={kind}", *(["tokenizer.vocabulary=320"] if "s" in kind else []))
    learn(tmp_path, *common)
    arguments = [f"prepare.input={tmp_path}/text.txt", f"run.output={tmp_path}", *common]
    edit(tmp_path / "text.txt", "w22", "w22")
    for _ in range(3):
        capsys.readouterr()
        assert main(["tokenizer", *arguments]) == 0
        assert "already done" in capsys.readouterr().out
    assert len(hashed) == 1
    edit(tmp_path / "text.txt", "w22", "q99")
    for command, told in {
        "tokenizer": "text.txt: its contents changed, but not its size",
        "prepare": f"{tmp_path}/tokenizer was made before text.txt changed; make it again with",
    }.items():
        assert main([command, *arguments]) == 2
        assert told in capsys.readouterr().err
    assert main(["prepare", *arguments, f"prepare.tokenizer={tmp_path}/tokenizer"]) == 0
    assert main(["tokenizer", *arguments, "--overwrite"]) == 0
    assert main(["prepare", *arguments, "--overwrite"]) == 0
    for stage in ("tokenizer", "prepare"):
        assert main([stage, *arguments]) == 0
        assert "already done" in capsys.readouterr().out


def test_held_out_documents_are_not_trained_on(tmp_path: Path) -> None:
    common = ("tokenizer.kind=word", "tokenizer.min_count=2")
    all_of_it = learn(tmp_path / "all", *common, "prepare.valid_fraction=0")
    half = learn(tmp_path / "half", *common, "prepare.valid_fraction=0.5")
    assert all_of_it["sample"]["documents"] == 300
    assert 90 < half["sample"]["documents"] < 210
    for name, made in (("all", all_of_it), ("half", half)):
        assert made["vocabulary"] == load_tokenizer(str(tmp_path / name / "tokenizer")).vocabulary
    char = ("tokenizer.kind=char", "prepare.valid_fraction=0.5")
    assert 90 < learn(tmp_path / "char", *char)["sample"]["documents"] < 210


def test_words_that_only_held_out_text_has_come_last(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("b\n" * 2 + "a\n" + "c c\n")
    (tmp_path / "valid.txt").write_text("x a\n" + "y y\n" * 3)
    sources = [
        {"name": name, "path": str(tmp_path / f"{name}.txt"), "split": name}
        for name in ("train", "valid")
    ]
    arguments = [f"prepare.input={json.dumps(sources)}", "tokenizer.kind=word"]
    for number, expected in ((1, [*"bca", *"yx"]), (2, [*"bc"])):
        output = [f"run.output={tmp_path}/{number}", f"tokenizer.min_count={number}"]
        assert main(["tokenizer", *arguments, *output]) == 0
        tokenizer = load_tokenizer(str(tmp_path / str(number) / "tokenizer"))
        assert [tokenizer.spelling(n) for n in range(3, tokenizer.vocabulary)] == expected


def test_the_coverage_of_the_corpus_is_printed_and_recorded(
    tmp_path: Path, capsys: Capture
) -> None:
    details = learn(tmp_path, "tokenizer.vocabulary=400", "prepare.valid_fraction=0")
    found = details["coverage"]
    assert found["documents"] == 300
    assert found["unknown"] == 0
    assert found["restored"] == 1
    assert found["bytes"] / found["tokens"] == pytest.approx(found["bytes_per_token"], abs=1e-5)
    stats = json.loads((tmp_path / "tokenizer" / "stats.json").read_text())
    assert stats["coverage"] == found
    out = capsys.readouterr().out
    assert "coverage of the corpus: measure | value" in out
    assert "unknown tokens | 0.00%" in out
    assert f"vocabulary used | {found['used']:,} of {details['vocabulary']:,}" in out
    assert "longest tokens: " + found["longest"][0] in out


def test_a_sentencepiece_model_of_the_user_is_copied_unchanged(
    tmp_path: Path, capsys: Capture
) -> None:
    learn(tmp_path / "other", "tokenizer.vocabulary=330")
    model = tmp_path / "other" / "tokenizer" / "tokenizer.model"
    learn(tmp_path / "given", f"tokenizer.file={model}", "tokenizer.seed=3")
    assert (tmp_path / "given" / "tokenizer" / "tokenizer.model").read_bytes() == model.read_bytes()
    out = capsys.readouterr().out
    assert "no byte pieces" not in out
    # Only the content of the model counts, not its path or the settings of training.
    moved = tmp_path / "moved.model"
    moved.write_bytes(model.read_bytes())
    learn(tmp_path / "given", f"tokenizer.file={moved}", "tokenizer.vocabulary=301")
    assert "already done" in capsys.readouterr().out
    moved.write_bytes(b"no model")
    text = tmp_path / "given" / "text.txt"
    arguments = [f"prepare.input={text}", f"run.output={tmp_path}/new", f"tokenizer.file={moved}"]
    assert main(["tokenizer", *arguments]) == 2
    assert f"biloom: tokenizer.file: {moved}: not a SentencePiece model" in capsys.readouterr().err


def test_text_that_a_model_of_the_user_loses_is_reported(tmp_path: Path, capsys: Capture) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["w1 w2 w3"] * 9), model_writer=model, vocab_size=30,
        num_threads=1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    path = tmp_path / "lossy.model"
    path.write_bytes(model.getvalue())
    details = learn(tmp_path, f"tokenizer.file={path}")
    assert details["coverage"]["unknown"] > 0.1
    out = capsys.readouterr().out
    assert "no byte pieces, so characters that it lacks become the unknown token" in out
    assert "100.00% of the texts cannot be restored from their tokens" in out


def test_a_tokenizer_json_of_the_user_is_copied_unchanged(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "bert.json"
    file.write_bytes(tokenizer_file("bert"))
    kind = "tokenizer.kind=huggingface"
    details = learn(tmp_path / "one", kind, f"tokenizer.file={file}")
    made = files(tmp_path / "one")
    assert made.keys() == {"tokenizer.json", "huggingface.json"}
    assert made["huggingface.json"] == file.read_bytes()
    found = details["coverage"]
    assert (details["kind"], details["vocabulary"]) == ("huggingface", found["vocabulary"])
    assert found["unknown"] > 0.1
    out = capsys.readouterr().out
    assert "of the texts cannot be restored from their tokens: the tokenizer.json normalises" in out
    assert "are dropped" not in out
    # Only the content of the file counts, not its path.
    file.rename(tmp_path / "moved.json")
    learn(tmp_path / "one", kind, f"tokenizer.file={tmp_path}/moved.json")
    assert "already done" in capsys.readouterr().out
    file.write_bytes(tokenizer_file("gpt2"))
    text = tmp_path / "one" / "text.txt"
    arguments = [kind, f"prepare.input={text}", f"run.output={tmp_path}/one"]
    assert main(["tokenizer", *arguments, f"tokenizer.file={file}"]) == 2
    assert "tokenizer.file" in capsys.readouterr().err
    assert main(["tokenizer", *arguments]) == 2
    assert capsys.readouterr().err == (
        "biloom: tokenizer.file is missing: tokenizer.kind=huggingface needs the path or URL of a "
        "tokenizer.json\n"
    )


def test_a_file_that_drops_characters_is_reported(tmp_path: Path, capsys: Capture) -> None:
    settings = json.loads(tokenizer_file("llama"))
    settings["model"] = {"type": "BPE", "vocab": {"w": 0, "1": 1}, "merges": [], "unk_token": None}
    file = tmp_path / "small.json"
    file.write_text(json.dumps({**settings, "added_tokens": []}))
    learn(tmp_path / "run", "tokenizer.kind=huggingface", f"tokenizer.file={file}")
    assert (
        "the tokenizer.json has no unknown token and no byte tokens, so characters that it lacks are "
        "dropped"
    ) in " ".join(capsys.readouterr().out.split())


def test_a_killed_count_of_words_resumes_to_the_same_bytes(tmp_path: Path, biloom: Command) -> None:
    lines = [f"{n % 997:x} {n * n % 9973:x} {n:x}" for n in range(25_000)]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    common = [
        "tokenizer.kind=word",
        "prepare.unit_bytes=20000",
        f"prepare.input={tmp_path}/text.txt",
    ]
    work = tmp_path / "killed" / "tokenizer" / "_work"
    process = biloom.start("tokenizer", *common, f"run.output={tmp_path}/killed")
    with process:
        while not len(list(work.glob("*/word-counts/*.json"))) > 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (work.parent / "manifest.json").exists()
    for name in ("killed", "whole"):
        assert main(["tokenizer", *common, f"run.output={tmp_path}/{name}"]) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert not work.exists()


def test_a_held_out_source_is_not_trained_on(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        (tmp_path / f"{name}.txt").write_text(f"{name}word\n" * 9)
    sources = [
        {"name": name, "path": str(tmp_path / f"{name}.txt"), "split": name}
        for name in ("train", "valid")
    ]
    text = json.dumps(sources)
    arguments = [f"prepare.input={text}", f"run.output={tmp_path}", "tokenizer.model=bpe"]
    assert main(["tokenizer", *arguments]) == 0
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    spelled = [tokenizer.spelling(number) for number in range(tokenizer.vocabulary)]
    assert "\u2581trainword" in spelled
    assert not [piece for piece in spelled if "valid" in piece]


def test_a_large_text_is_sampled(tmp_path: Path) -> None:
    options = ("tokenizer.vocabulary=320", "prepare.valid_fraction=0")
    details = learn(tmp_path, *options, "tokenizer.sample_bytes=3000")
    assert 1500 < details["sample"]["bytes"] < 4500


@pytest.mark.parametrize("raw", [b"", b"\n \n"])
@pytest.mark.parametrize("kind", ["word", "sentencepiece"])
def test_text_without_a_document_is_refused(
    raw: bytes, kind: str, tmp_path: Path, capsys: Capture
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(raw)
    arguments = [f"prepare.input={text}", f"run.output={tmp_path}", f"tokenizer.kind={kind}"]
    assert main(["tokenizer", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("biloom: ")
    assert err.count("\n") == 1


def test_a_train_split_without_documents_gives_no_vocabulary(
    tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "text.txt").write_text("a b\n")
    source = json.dumps([{"path": f"{tmp_path}/text.txt", "filters": {"min_characters": 9}}])
    arguments = [f"prepare.input={source}", f"run.output={tmp_path}", "tokenizer.kind=word"]
    assert main(["tokenizer", *arguments]) == 2
    assert capsys.readouterr().err == (
        "biloom: the train split has no word for the vocabulary; check prepare.input, "
        "prepare.filters and tokenizer.min_count\n"
    )


def test_only_counting_words_needs_beam(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "apache_beam" else found(name)
    )
    learn(tmp_path / "char", "tokenizer.kind=char")
    text = tmp_path / "char" / "text.txt"
    arguments = [f"prepare.input={text}", f"run.output={tmp_path}", "tokenizer.kind=word"]
    assert main(["tokenizer", *arguments]) == 2
    assert capsys.readouterr().err == (
        "biloom: `biloom tokenizer` needs apache_beam, which is not installed; "
        "pip install 'biloom[beam]'\n"
    )


def held_out_and_train(folder: Path, *splits: str) -> str:
    """Make a source for each split; that of valid is much larger."""
    for split in splits:
        number = 20_000 if split == "valid" else 300
        text = "".join(f"{split} line {n} with some words\n" for n in range(number))
        (folder / f"{split}.txt").write_text(text)
    sources = [{"name": s, "path": f"{folder}/{s}.txt", "split": s} for s in splits]
    return f"prepare.input={json.dumps(sources)}"


@pytest.mark.parametrize("seed", range(5))
def test_a_large_held_out_source_takes_nothing_from_the_sample(tmp_path: Path, seed: int) -> None:
    own = ("tokenizer.sample_bytes=4000", f"tokenizer.seed={seed}", "tokenizer.kind=char")
    sources = held_out_and_train(tmp_path, "train", "valid")
    details = learn(tmp_path / "out", *own, sources)
    assert details["sample"]["bytes"] == 4000


@pytest.mark.parametrize("kind", ["sentencepiece", "char", "word"])
def test_a_corpus_without_training_sources_is_refused(
    tmp_path: Path, kind: str, capsys: Capture
) -> None:
    sources = held_out_and_train(tmp_path, "valid", "test")
    arguments = [sources, f"tokenizer.kind={kind}", f"run.output={tmp_path}/out"]
    assert main(["tokenizer", *arguments]) == 2
    assert (
        "prepare.input has no text to learn a tokenizer from: all its sources are of split valid or "
        "test; add a source without split, or of split: train"
    ) in capsys.readouterr().err


def test_words_of_a_text_without_spaces_are_warned_of(tmp_path: Path, capsys: Capture) -> None:
    text = tmp_path / "text.txt"
    warning = (
        "distinct words of the sample occur once, so a model cannot learn them; if the text has"
    )
    thai = ["".join(chr(0x0E01 + (n * k * 7) % 40) for k in range(1, 60)) for n in range(300)]
    english = [f"word{n % 50} word{n % 70} and some more" for n in range(300)]
    rare = [" ".join(f"w{n}{k}" for k in range(5)) for n in range(300)]
    for number, (lines, told) in enumerate(((thai, True), (english, False), (rare, True))):
        text.write_text("\n".join(lines), encoding="utf-8")
        output = ["tokenizer.kind=word", f"prepare.input={text}", f"run.output={tmp_path}/{number}"]
        assert main(["tokenizer", *output]) == 0
        assert (warning in capsys.readouterr().out) == told
    char = ["tokenizer.kind=char", f"prepare.input={text}", f"run.output={tmp_path}/char"]
    assert main(["tokenizer", *char]) == 0
    assert warning not in capsys.readouterr().out
