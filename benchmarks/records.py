"""Records: the lowest validation perplexity of small corpora within a CPU time of one core.

    python benchmarks/records.py OUT [NAME ...] [--seeds 1 2 3] [--data FOLDER] [--set KEY=VALUE ...]

A record is a text, a limit in CPU seconds, and settings (`RECORDS`); `--set` tries others. The time is that of
`biloom train` with one thread, including its start and its evaluation. The tokenizer, the corpus and the last
evaluation are not counted. docs/records.md has the rules. The data folder (default $BILOOM_TEST_DATA) has
lm/ptb and lm/wikitext-2.

OUT keeps finished runs; an interrupted one is repeated. A run's train/metrics.jsonl is its log. The last line
has all figures as JSON, with the GFLOP/s of a matrix product as the speed of the core.
"""

import argparse
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

PYTHON = (sys.executable, "-m", "pipeline.cli")


class Record(NamedTuple):
    """A standing record.

    Attributes:
        text: name of the shipped config and of the folder below lm.
        limit: CPU seconds.
        steps: optimiser steps that fit into the limit on the machine of the record.
        settings: overrides of the config.
    """

    text: str
    limit: int
    steps: int
    settings: tuple[str, ...]


SRU = (
    *("model.recurrent.kind=sru", "model.recurrent.hidden=241", "train.optimizer.kind=adam"),
    *("model.input.dropout=0", "model.recurrent.dropout=0"),
)
RECORDS = {
    "ptb-500": Record("ptb", 500, 4348, (*SRU, "train.learning_rate=0.01")),
}


def run(out: Path, name: str, seed: int, data: Path, more: list[str]) -> dict[str, Any]:
    """Train and evaluate with a seed, unless it is done; return the figures."""
    record = RECORDS[name]
    folder, corpus = out / f"{name}-{seed}", out / "corpora" / record.text
    kept = folder / "result.json"
    if kept.exists():
        done: dict[str, Any] = json.loads(kept.read_text())
        return done
    shutil.rmtree(folder, ignore_errors=True)
    where = data / "lm" / record.text
    for stage in ("tokenizer", "prepare"):
        biloom(where, stage, record.text, f"run.output={corpus}")
    settings = [
        *(f"prepare.tokenizer={corpus}/tokenizer", f"train.corpus={corpus}/prepare"),
        *("tracking.wandb=off", "train.device=cpu", "train.devices=1", "train.log_steps=100"),
        *(f"train.steps={record.steps}", f"train.evaluate_steps={record.steps}"),
        *(*record.settings, *more, f"train.seed={seed}", f"run.output={folder}"),
    ]
    seconds = biloom(where, "train", record.text, *settings)
    biloom(where, "evaluate", record.text, *settings)
    details = json.loads((folder / "evaluate" / "manifest.json").read_text())["details"]
    figures = {
        "seed": seed,
        "cpu_seconds": round(seconds, 1),
        **{way: round(details[f"{way}_perplexity"], 2) for way in ("forward", "backward")},
    }
    kept.write_text(json.dumps(figures))
    return figures


def biloom(where: Path, *arguments: str) -> float:
    """Run a command in a folder with one thread; return its CPU seconds."""
    before = sum(os.times()[2:4])
    done = subprocess.run(
        [*PYTHON, *arguments],
        cwd=where,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return sum(os.times()[2:4]) - before


def machine() -> dict[str, Any]:
    """Return the name of the processor, and the GFLOP/s of a matrix product on one thread."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    torch.set_num_threads(1)
    a = torch.rand(1024, 1024)
    a @ a
    begin = time.process_time()
    for _ in range(20):
        a @ a
    speed = 20 * 2 * 1024**3 / (time.process_time() - begin) / 1e9
    return {"processor": names[0] if names else "", "gflops": round(speed, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(RECORDS)}; default all"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--data", type=Path, default=os.environ.get("BILOOM_TEST_DATA"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other settings")
    options = parser.parse_args()
    if unknown := set(options.names).difference(RECORDS):
        parser.error(f"no record {min(unknown)}; there are {', '.join(RECORDS)}")
    out = options.out.absolute()
    found: dict[str, Any] = {}
    for name in options.names or RECORDS:
        limit = RECORDS[name].limit
        runs = []
        for seed in options.seeds:
            one = run(out, name, seed, options.data.absolute(), options.set)
            late = "" if one["cpu_seconds"] <= limit else f", more than {limit}"
            print(
                f"{name}, seed {seed}: forward {one['forward']:.1f}, backward {one['backward']:.1f}, "
                f"{one['cpu_seconds']:.0f} CPU s{late}",
                flush=True,
            )
            runs.append(one)
        found[name] = {
            **{way: statistics.mean(one[way] for one in runs) for way in ("forward", "backward")},
            "mean": statistics.mean(math.sqrt(one["forward"] * one["backward"]) for one in runs),
            "within_limit": all(one["cpu_seconds"] <= limit for one in runs),
            "runs": runs,
        }
    print(json.dumps({**found, "machine": machine()}))


if __name__ == "__main__":
    main()
