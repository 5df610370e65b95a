"""What works on a local disk works on an object store: the same results, resumed and appended too."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from biloom import VectorCache
from pipeline.lifecycle.registry import STAGES
from preprocess.files import storage
from preprocess.files.manifest import check_files, read_manifest
from tests.stored_run import StoredRun

Tiny = Any  # of conftest.py
Command = Any

pytestmark = pytest.mark.slow

CONFIG = """\
tokenizer: {kind: word}
prepare:
  input:
    - {name: text, path: "TEXT/train.txt"}
    - {name: held out, path: "TEXT/held-out.txt", split: valid}
  valid_fraction: 0.0
  unit_bytes: 2048
  part_tokens: 300
  shard_tokens: 300
model:
  recurrent: {hidden: 8, projection: 4}
  head: {cutoffs: [20, 50]}
train: {rows: 3, unroll: 5, steps: 20, warmup_steps: 5, compile: "off", device: cpu, data_workers: 0,
        checkpoint_steps: 5, evaluate_steps: 10, log_steps: 5}
embed: {sample: 30, dtype: float32}
tracking: {wandb: "off"}
"""


@pytest.fixture(scope="session")
def asked(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, biloom: Command) -> StoredRun:
    root = tmp_path_factory.mktemp("stores")
    lines = (tiny.root / "corpus.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (root / "train.txt").write_text("".join(lines[:300]), encoding="utf-8")
    (root / "held-out.txt").write_text("".join(lines[300:350]), encoding="utf-8")
    (root / "more.txt").write_text("".join(lines[350:]), encoding="utf-8")
    (root / "run.yaml").write_text(CONFIG.replace("TEXT", str(root)))
    made = StoredRun(root)
    succeed(biloom, "run", made, str(root / "disk"))
    return made


def succeed(biloom: Command, command: str, asked: StoredRun, output: str, *overrides: str) -> str:
    answer = biloom.run(command, *asked.arguments(output, *overrides))
    assert (answer.returncode, answer.stderr) == (0, "")
    return str(answer.stdout)


@pytest.fixture(scope="module")
def whole(asked: StoredRun, bucket: str, biloom: Command) -> str:
    """The URL of a whole run on a store."""
    succeed(biloom, "run", asked, f"{bucket}/whole")
    return f"{bucket}/whole"


def test_a_whole_run_gives_the_results_of_a_disk(asked: StoredRun, whole: str) -> None:
    contents = asked.contents(whole)
    assert list(contents) == list(STAGES)
    assert contents == asked.contents(str(asked.root / "disk"))
    assert storage.exists(f"{whole}/report.html")


def test_a_second_run_finds_every_stage_done(asked: StoredRun, whole: str, biloom: Command) -> None:
    assert succeed(biloom, "run", asked, whole).count("  already done\n") == len(STAGES)


def test_a_cache_is_read_from_the_store(asked: StoredRun, whole: str, biloom: Command) -> None:
    here = VectorCache.open(asked.root / "disk" / "embed")
    there = VectorCache.open(f"{whole}/embed")
    assert list(there) == list(here)
    for text in list(here)[:5]:
        assert (there[text] == here[text]).all()
    answer = biloom.run("cache", "get", f"{whole}/embed", next(iter(here)))
    assert (answer.returncode, answer.stderr) == (0, "")


def test_every_command_that_reads_results_reads_them_from_a_store(
    whole: str, biloom: Command
) -> None:
    commands = [("status", whole), ("cache", "verify", f"{whole}/embed")]
    commands += [(verb, f"{whole}/{name}") for verb in ("inspect", "check") for name in STAGES]
    for command in commands:
        answer = biloom.run(*command)
        assert (answer.returncode, answer.stderr) == (0, ""), command


def test_texts_are_appended_and_a_changed_result_is_moved_aside(
    asked: StoredRun, bucket: str, tmp_path: Path, biloom: Command
) -> None:
    outputs = (f"{bucket}/appended", str(tmp_path / "appended"))
    more = (f"embed.input={asked.root}/more.txt", "embed.append=true")
    for output in outputs:
        succeed(biloom, "run", asked, output)
        succeed(biloom, "embed", asked, output, *more)
    store, disk = (asked.contents(output) for output in outputs)
    assert store == disk
    changed = "export.weights=float16"
    for output in outputs:
        refused = biloom.run("export", *asked.arguments(output, changed))
        assert refused.returncode == 2
        assert "--overwrite" in refused.stderr
        succeed(biloom, "export", asked, output, changed, "--overwrite")
    changed_store, changed_disk = (asked.contents(output) for output in outputs)
    assert changed_store == changed_disk != store
    assert storage.exists(f"{outputs[0]}/export.old-1/manifest.json")


def names_of_work(stage: str, folder: str = "") -> list[str]:
    """Return the names of files in the unfinished work of a stage."""
    works = storage.list_folders(f"{stage}/_work")
    return [name for work in works for name in storage.list_names(f"{stage}/_work/{work}{folder}")]


@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_prepare_resumes(
    number: int, mode: str, asked: StoredRun, bucket: str, biloom: Command
) -> None:
    output = f"{bucket}/killed-{mode}-{int(number)}"
    succeed(biloom, "tokenizer", asked, output)
    runner = (f"runner.options.mode={mode}", "runner.options.workers=2")
    with biloom.start("prepare", *asked.arguments(output, *runner)) as driver:
        end = time.monotonic() + 60
        while len(names_of_work(f"{output}/prepare", "/units")) < 2:
            assert time.monotonic() < end
        os.kill(driver.pid, number)
        driver.communicate(timeout=60)
    assert driver.returncode == (75 if number == signal.SIGTERM else -number)
    succeed(biloom, "prepare", asked, output)
    content = asked.contents(str(asked.root / "disk"))["prepare"]
    assert asked.contents(output)["prepare"] == content


def test_a_killed_training_resumes(asked: StoredRun, bucket: str, biloom: Command) -> None:
    output, folders = f"{bucket}/trained", ("tokenizer", "prepare")
    for stage in folders:
        succeed(biloom, stage, asked, output)
    with biloom.start("train", *asked.arguments(output)) as driver:
        end = time.monotonic() + 120
        while not any(name.startswith("step-") for name in names_of_work(f"{output}/train")):
            assert time.monotonic() < end
            assert driver.poll() is None, driver.communicate()
        driver.kill()
    succeed(biloom, "train", asked, output)
    content = asked.contents(str(asked.root / "disk"))["train"]
    assert asked.contents(output)["train"] == content


def test_nasty_text_gives_the_corpus_of_a_disk(
    bucket: str, tmp_path: Path, biloom: Command
) -> None:
    data = os.environ.get("BILOOM_TEST_DATA")
    if not data:
        pytest.skip("BILOOM_TEST_DATA names no folder of test data")
    config = tmp_path / "nasty.yaml"
    config.write_text(
        json.dumps(
            {
                "tokenizer": {"kind": "char"},
                "prepare": {
                    "input": f"{data}/nasty/**/*",
                    "damaged_files": "skip",
                    "keep_dropped": True,
                    "unit_bytes": 4_000_000,
                },
            }
        )
    )
    manifests = []
    for output in (str(tmp_path), f"{bucket}/nasty"):
        for stage in ("tokenizer", "prepare"):
            answer = biloom.run(stage, config, f"run.output={output}")
            assert answer.returncode == 0, answer.stderr
        manifests.append(read_manifest(f"{output}/prepare", "prepare"))
        assert check_files(f"{output}/prepare", manifests[-1]) == []
    assert manifests[0].content == manifests[1].content
    names = [[file.name for file in manifest.files] for manifest in manifests]
    assert names[0] == names[1]
