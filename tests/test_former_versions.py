"""Run folders of former versions stay valid: they are read, resumed and extended."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biloom import BiLM, VectorCache
from pipeline.cli import main
from pipeline.lifecycle.registry import STAGES
from pipeline.stages import prepare
from preprocess.files.manifest import read_manifest
from preprocess.work import folder as work_folder

FIXTURE = Path(__file__).parent / "fixtures" / "version-0.1"
TEXTS = ("corpus.txt", "rows.jsonl", "more.txt")
MODIFIED = 1_700_000_000 * 10**9
"""Modification time of the text in nanoseconds, as `FIXTURE/README.md` has it."""


@pytest.fixture
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run folders, as the current folder."""
    folder = tmp_path / "former"
    shutil.copytree(FIXTURE, folder)
    for name in TEXTS:
        os.utime(folder / name, ns=(MODIFIED, MODIFIED))
    monkeypatch.chdir(folder)
    return folder


def biloom(*arguments: str) -> None:
    assert main([arguments[0], "run.yaml", *arguments[1:]]) == 0


def shards(folder: Path) -> dict[str, bytes]:
    names = ("train-*", "valid-*", "counts.npy", "dropped-*")
    return {path.name: path.read_bytes() for name in names for path in folder.glob(name)}


def joined(folder: Path) -> dict[str, bytes]:
    """Return the shards of each split as one, because this version joins the parts of several units."""
    found: dict[str, bytes] = {}
    for name, data in sorted(shards(folder).items()):
        key = f"{name.partition('-')[0]}.{name.rpartition('.')[2]}"
        found[key] = found.get(key, b"") + data
    return found


def test_a_finished_run_is_already_done(former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.read_bytes() for p in former.rglob("*") if p.is_file()}
    del before[former / "finished" / "report.html"]
    biloom("run")
    assert capsys.readouterr().out.count("  already done\n") == len(STAGES)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_stage_is_complete(
    stage: str, former: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", f"finished/{stage}"]) == 0
    assert main(["check", f"finished/{stage}"]) == 0
    assert "damaged" not in capsys.readouterr().out


def test_a_finished_run_has_a_status_and_a_report(
    former: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (former / "finished" / "report.html").unlink()
    (former / "finished").rename(former / "moved")
    assert main(["status", "moved"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == ["done"] * len(STAGES)
    assert main(["report", "moved"]) == 0
    assert (former / "moved" / "report.html").exists()


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ("prepare", "2 of 5 units read, 0 finished"),
        ("train", "saved at step 10 of 40"),
        ("embed", "1 of 1 units read, 0 finished"),
    ],
)
def test_a_killed_stage_has_a_status(
    stage: str, line: str, former: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", f"killed-{stage}"]) == 0
    out = capsys.readouterr().out
    assert f"    {stage} | unfinished | - | - | -\n" in out
    assert out.endswith(
        f"  {stage}: unfinished work: {line}\n  next: run the same command again, which resumes {stage}\n"
    )


def test_another_setting_is_still_refused(former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "run.yaml", "prepare.valid_fraction=0.2"]) == 2
    assert "    prepare.valid_fraction: 0.1 -> 0.2\n" in capsys.readouterr().err


def test_changed_text_is_still_refused(former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = former / "corpus.txt"
    text.write_bytes(text.read_bytes().swapcase())
    assert main(["prepare", "run.yaml"]) == 2
    assert "corpus.txt: " in capsys.readouterr().err


def test_a_killed_prepare_is_resumed_to_the_same_corpus(former: Path) -> None:
    records = former / "killed-prepare" / "prepare" / "_work" / "units"
    done = {path: path.stat().st_mtime_ns for path in records.glob("0*.json")}
    assert len(done) == 2
    biloom("prepare", "run.output=killed-prepare", "prepare.tokenizer=finished/tokenizer")
    resumed, finished = former / "killed-prepare" / "prepare", former / "finished" / "prepare"
    assert joined(resumed) == joined(finished)
    assert not (resumed / "_work").exists()


@pytest.mark.parametrize("moves", [0, 1, 1.5, 2, None])
def test_work_moves_to_the_folder_of_its_request_and_a_kill_meanwhile_loses_nothing(
    moves: float | None, former: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, left = work_folder.move_entries, iter(range(3 if moves is None else int(moves)))

    def killed(*arguments: Any) -> None:
        if next(left, None) is None:
            if moves == 1.5:
                source, target, names = arguments
                move(source, target, names[: len(names) // 2])
            raise KeyboardInterrupt
        move(*arguments)

    arguments = ("run.output=killed-prepare", "prepare.tokenizer=finished/tokenizer")
    with monkeypatch.context() as patched:
        patched.setattr(work_folder, "move_entries", killed)
        patched.setattr(prepare, "make", killed)
        assert main(["prepare", "run.yaml", *arguments]) == 130
    root = former / "killed-prepare" / "prepare" / "_work"
    if moves is None:
        assert [len(path.name) for path in root.iterdir()] == [64]
        assert len([*root.glob("*/units/0*.json")]) == 2
    biloom("prepare", *arguments)
    resumed, finished = root.parent, former / "finished" / "prepare"
    assert joined(resumed) == joined(finished)
    assert not root.exists()


def test_a_killed_training_is_resumed_from_its_checkpoint(
    former: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = former / "killed-train"
    kept = (folder / "train" / "metrics.jsonl").read_text().splitlines()[:2]
    biloom("train", f"run.output={folder}", "train.corpus=finished/prepare", "train.steps=40")
    out = capsys.readouterr().out
    assert "resuming unfinished work" in out
    assert (
        "  continuing with the defaults of the version that began it: train.order=shuffled, "
        "train.reset_state=0.0\n"
    ) in out
    assert read_manifest(str(folder / "train")).details["steps"] == 40
    # The rows up to the checkpoint's step, 10, are those of the killed training.
    assert (folder / "train" / "metrics.jsonl").read_text().splitlines()[:2] == kept


def test_a_finished_training_takes_more_steps(former: Path) -> None:
    biloom("train", "train.steps=35")
    assert read_manifest("finished/train").details["steps"] == 35


def test_a_training_starts_from_a_finished_one_and_its_optimiser(
    former: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = ("train.corpus=finished/prepare", "prepare.tokenizer=finished/tokenizer")
    biloom("train", "run.output=next", *corpus, "train.init_from=finished/train", "train.steps=2")
    assert "the optimiser continues with its moments" in capsys.readouterr().out
    assert read_manifest("next/train").details["steps"] == 2


def test_a_training_goes_on_with_the_defaults_of_its_version(
    former: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    biloom("train", "train.steps=35")
    asked = read_manifest("finished/train").asked
    assert (asked["train.order"], asked["train.reset_state"]) == ("shuffled", 0.0)
    capsys.readouterr()
    biloom("train", "train.steps=35")
    assert "already done" in capsys.readouterr().out
    # A setting that is named is not changed.
    assert main(["train", "run.yaml", "train.steps=35", "train.order=mixed"]) == 2
    error = capsys.readouterr().err
    assert '    train.order: "shuffled" -> "mixed"\n' in error
    # A new training has the defaults of today.
    biloom("train", "train.learning_rate=0.01", "--overwrite")
    asked = read_manifest("finished/train").asked
    assert asked["train.order"] == "mixed"
    assert asked["train.reset_state"] > 0


def test_a_killed_embedding_is_resumed_from_its_part(former: Path) -> None:
    shard = former / "killed-embed" / "embed" / "vectors-000000-000.bin"
    written = shard.stat().st_mtime_ns
    biloom(
        "embed",
        "run.output=killed-embed",
        "embed.model=finished/export",
        "embed.input=[corpus.txt,more.txt]",
    )
    assert shard.stat().st_mtime_ns == written
    assert len(VectorCache.open("killed-embed/embed")) == 297
    assert main(["cache", "verify", "killed-embed/embed"]) == 0


def test_texts_are_added_to_a_finished_cache(former: Path) -> None:
    before = VectorCache.open("finished/embed")
    vectors = {text: before[text].copy() for text in before}
    biloom("embed", "embed.input=more.txt", "embed.append=true")
    after = VectorCache.open("finished/embed")
    assert len(after) > len(before)
    for text, expected in vectors.items():
        np.testing.assert_array_equal(after[text], expected)
    # The request of the former version is still answered.
    biloom("embed")
    assert len(VectorCache.open("finished/embed")) == len(after)


def test_a_model_folder_gives_the_same_vectors_as_before(former: Path) -> None:
    cache = VectorCache.open("finished/embed")
    text = next(iter(cache))
    [embedding] = BiLM.from_pretrained("finished/export").embed([text])
    np.testing.assert_allclose(embedding.vectors, cache[text], atol=1e-5)
