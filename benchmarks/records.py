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
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from cells import biloom, perplexities, perplexity
from embed import sgemm


class Record(NamedTuple):
    """A standing record.

    Attributes:
        text: name of the shipped config and of the folder below lm.
        limit: CPU seconds.
        steps: optimiser steps.
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
    "ptb-500": Record("ptb", 500, 5000, (*SRU, "train.learning_rate=0.004")),
}


def run(
    record: Record, folder: Path, corpus: Path, where: Path, seed: int, more: list[str]
) -> dict[str, Any]:
    """Train and evaluate with a seed, unless it is done; return the figures.

    Args:
        record: the record.
        folder: folder of the run.
        corpus: run folder with the tokenizer and the corpus.
        where: folder of the text.
        seed: seed of the training.
        more: settings that replace those of the record.

    Raises:
        ValueError: if the folder has a run with other settings.
        CalledProcessError: if a command fails.
    """
    given = [
        *(f"train.steps={record.steps}", f"train.evaluate_steps={record.steps}"),
        *(*record.settings, *more, f"train.seed={seed}"),
    ]
    # A command refuses a setting that is given twice.
    chosen = list({setting.partition("=")[0]: setting for setting in given}.values())
    kept = folder / "result.json"
    if kept.exists():
        done: dict[str, Any] = json.loads(kept.read_text())
        if done["settings"] != chosen:
            raise ValueError(f"{folder} has a run with other settings; choose another OUT")
        return done
    shutil.rmtree(folder, ignore_errors=True)
    settings = [
        *(f"prepare.tokenizer={corpus}/tokenizer", f"train.corpus={corpus}/prepare"),
        *("tracking.wandb=off", "train.device=cpu", "train.devices=1", "train.log_steps=100"),
        *(*chosen, f"run.output={folder}"),
    ]
    seconds = biloom(where, "train", record.text, *settings)
    biloom(where, "evaluate", record.text, *settings)
    figures = {
        **{"seed": seed, "cpu_seconds": round(seconds, 1), **perplexities(folder)},
        "settings": chosen,
    }
    kept.write_text(json.dumps(figures))
    return figures


def machine() -> dict[str, Any]:
    """Return the name of the processor, and the GFLOP/s of a matrix product on one thread."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    torch.set_num_threads(1)
    return {"processor": names[0] if names else "", "gflops": round(sgemm(), 1)}


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
        record = RECORDS[name]
        corpus, where = out / "corpora" / record.text, options.data.absolute() / "lm" / record.text
        runs = []
        try:
            for stage in ("tokenizer", "prepare"):
                biloom(where, stage, record.text, f"run.output={corpus}")
            for seed in options.seeds:
                one = run(record, out / f"{name}-{seed}", corpus, where, seed, options.set)
                late = "" if one["cpu_seconds"] <= record.limit else f", more than {record.limit}"
                print(
                    f"{name}, seed {seed}: forward {one['forward']:.1f}, backward {one['backward']:.1f}, "
                    f"{one['cpu_seconds']:.0f} CPU s{late}",
                    flush=True,
                )
                runs.append(one)
        except subprocess.CalledProcessError as error:
            sys.exit(error.stderr)
        except ValueError as error:
            parser.error(str(error))
        found[name] = {
            **{way: statistics.mean(one[way] for one in runs) for way in ("forward", "backward")},
            "mean": statistics.mean(map(perplexity, runs)),
            "within_limit": all(one["cpu_seconds"] <= record.limit for one in runs),
            "runs": runs,
        }
    print(json.dumps({**found, "machine": machine()}))


if __name__ == "__main__":
    main()
