"""One `biloom run` in a process of its own: raw text to vectors."""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biloom import BiLM, VectorCache
from pipeline.cli import main
from pipeline.lifecycle.registry import STAGES
from preprocess.files.manifest import read_manifest

Command = Any  # of conftest.py
ROOT = Path(__file__).parents[1]
SCRIPTS = {
    "swahili": ("mto", "mti", "nyumba", "kubwa", "na", "wa", "maji", "safi"),
    "chinese": ("河流", "樹木", "房子", "大的", "和", "水", "乾淨", "的"),
    "hebrew": ("נהר", "עץ", "בית", "גדול", "ו", "מים", "נקי", "של"),
    "hindi": ("नदी", "पेड़", "घर", "बड़ा", "और", "पानी", "साफ़", "का"),
}

CONFIG = """\
tokenizer: {vocabulary: 320}
prepare:
  input:
    - {name: text, path: TEXT, license: CC0-1.0}
    - {name: rows, path: ROWS}
    - {name: held out, path: HELD_OUT, split: valid}
  valid_fraction: 0.05
model: {recurrent: {hidden: 12, projection: 6}}
train: {rows: 4, unroll: 8, steps: 30, warmup_steps: 5, compile: "off", device: cpu,
        evaluate_steps: 15, log_steps: 5}
embed: {sample: 50, dtype: float32}
tracking: {wandb: "off"}
"""


def sentences(seed: int, number: int) -> list[str]:
    draw = random.Random(seed)
    return [
        " ".join(draw.choices(draw.choice(list(SCRIPTS.values())), k=draw.randint(3, 12)))
        for _ in range(number)
    ]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the arguments of a run on a small corpus of three sources."""
    root = tmp_path_factory.mktemp("run")
    rows = "".join(json.dumps({"text": one}) + "\n" for one in sentences(2, 100))
    texts = {"TEXT": sentences(1, 300), "HELD_OUT": sentences(3, 40)}
    config = CONFIG.replace("ROWS", f"{root}/rows.jsonl")
    (root / "rows.jsonl").write_text(rows)
    for name, lines in texts.items():
        (root / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
        config = config.replace(name, f"{root}/{name}.txt")
    (root / "run.yaml").write_text(config)
    return ["run", f"{root}/run.yaml", f"run.output={root}/out"]


@pytest.fixture(scope="module")
def run(asked: list[str], biloom: Command) -> "subprocess.CompletedProcess[str]":
    answer: subprocess.CompletedProcess[str] = biloom.run(*asked)
    assert answer.returncode == 0, answer.stderr
    return answer


@pytest.fixture(scope="module")
def output(asked: list[str], run: "subprocess.CompletedProcess[str]") -> Path:
    return Path(asked[-1].removeprefix("run.output="))


def test_every_stage_prints_its_folder_and_nothing_goes_to_standard_error(
    run: "subprocess.CompletedProcess[str]", output: Path
) -> None:
    heads = [line for line in run.stdout.splitlines() if not line.startswith(" ")]
    assert heads == [
        *(f"{name}  {output}/{name}" for name in STAGES),
        f"report  {output}/report.html",
    ]
    assert run.stderr == ""


@pytest.mark.parametrize("stage", STAGES)
def test_every_folder_is_finished_and_complete(
    stage: str, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = output / stage
    assert not (folder / "_work").exists()
    assert {"config.yaml", "stats.json", "manifest.json"} <= {p.name for p in folder.iterdir()}
    assert main(["inspect", str(folder)]) == 0
    assert main(["check", str(folder)]) == 0
    assert capsys.readouterr().out.endswith(": all match the manifest\n")


def test_a_held_out_source_is_in_no_other_split(output: Path) -> None:
    details = read_manifest(str(output / "prepare")).details
    rows = {row["name"]: row for row in details["sources"]}
    assert rows["text"]["license"] == "CC0-1.0"
    assert rows["held out"]["documents"] > 30
    assert details["splits"]["valid"]["documents"] >= rows["held out"]["documents"]


def test_the_report_and_the_metrics_are_written(output: Path) -> None:
    page = (output / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "http://" not in page.replace("http://www.w3.org", "")
    lines = (output / "train" / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    assert max(row["step"] for row in metrics) == 30


def test_the_vectors_of_a_text_are_those_of_the_model(output: Path) -> None:
    cache = VectorCache.open(output / "embed")
    assert len(cache) == 50
    text = next(iter(cache))
    tokens = cache.tokens(text)
    assert cache[text].shape == (3, len(tokens), 12)  # layers, tokens, 2 x projection
    embedded = BiLM.from_pretrained(str(output / "export")).embed([text])[0]
    np.testing.assert_allclose(embedded.vectors, cache[text], atol=1e-5)


def test_a_second_run_finds_every_stage_already_done(
    asked: list[str], output: Path, biloom: Command
) -> None:
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.name != "report.html"}
    answer = biloom.run(*asked)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.count("  already done\n") == len(STAGES)
    after = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.name != "report.html"}
    assert {p: t for p, t in after.items() if p.is_file()} == {
        p: t for p, t in before.items() if p.is_file()
    }
