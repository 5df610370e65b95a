"""What the vectors of a model are worth in classification and tagging, beside all baselines.

    python benchmarks/tasks.py --english MODEL --chinese MODEL --out FOLDER [--tasks NAME ...]
        [--runs NAME ...] [--seeds N] [--data FOLDER]

The data folder (default: $BILOOM_TEST_DATA/labelled) holds the tasks:

    sst2           English, sentiment; dev
    trec, mr       English, question types and sentiment; 5 folds
    chnsenticorp   Chinese, sentiment; dev
    conll2003      English, named entities; testa
    weibo          Chinese, named entities; dev

Every figure is one that `biloom classify train` or `biloom tag train` prints: each run is such a command,
and its folder remains in FOLDER. A finished run is not run again, so that an interrupted benchmark goes
on. An interval is the command's bootstrap over texts; for folds, it is Wilson's interval of the share of
all texts. A network that is scored on dev also chose its epoch there.

The last line is a JSON object: for each task its rows, each with the score, the bounds of its 95 %
interval, and the CPU minutes of the command that it comes from, and the differences that the vectors are
for: the mix of the layers less layer 0, with less without the language model, fine-tuned less frozen.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold

FOLDS = 5
Z95 = 1.959964
"""Quantile of the normal distribution for an interval of 95 %."""
CLASSIFICATION = {
    "pool": ("head=pool",),
    "lstm": ("head=lstm", "baselines=false"),
    "cnn": ("head=cnn", "baselines=false"),
    "lstm-finetune": ("head=lstm", "finetune=true", "baselines=false"),
    "cnn-finetune": ("head=cnn", "finetune=true", "baselines=false"),
}
TAGGING: dict[str, tuple[str, ...]] = {
    "tagger": (),
    "tagger-finetune": ("finetune=true", "baselines=false"),
}
DIFFERENCES = (
    ("mix of the layers", "layer 0"),
    ("tagger with the language model", "tagger without the language model"),
    ("head=lstm, fine-tuned", "head=lstm"),
    ("head=cnn, fine-tuned", "head=cnn"),
    ("tagger with the fine-tuned language model", "tagger with the language model"),
)


class Task(NamedTuple):
    """A task: its language, command, files and settings."""

    chinese: bool
    command: str
    train: str
    dev: str | None
    settings: tuple[str, ...] = ()


TASKS = {
    "sst2": Task(False, "classify", "sst2/train.tsv", "sst2/dev.tsv"),
    "trec": Task(False, "classify", "trec/TREC.train.all", None),
    "mr": Task(False, "classify", "mr/rt-polarity.all", None),
    "chnsenticorp": Task(True, "classify", "chnsenticorp/train.tsv", "chnsenticorp/dev.tsv"),
    "conll2003": Task(False, "tag", "conll2003/eng.train", "conll2003/eng.testa"),
    "weibo": Task(
        True, "tag", "weibo-ner/weiboNER_2nd_conll.train", "weibo-ner/weiboNER_2nd_conll.dev"
    ),
}


class Score(NamedTuple):
    """A score, the bounds of its 95 % interval, and the number of texts that it is a share of."""

    value: float
    low: float
    high: float
    texts: int


def folds(source: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Write the training and test file of each fold as TSV, and yield their paths."""
    with source.open(encoding="latin-1", newline="\n") as file:
        rows = [line.rstrip("\n").split(" ", 1) for line in file if line.strip()]
    labels = np.array([label for label, _ in rows])
    parts = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels)
    folder.mkdir(parents=True, exist_ok=True)
    for number, indices in enumerate(parts):
        paths = folder / f"train-{number}.tsv", folder / f"test-{number}.tsv"
        for path, chosen in zip(paths, indices, strict=True):
            lines = [f"{rows[index][0]}\t{rows[index][1].strip()}\n" for index in chosen]
            path.write_text("".join(["label\ttext\n", *lines]), encoding="utf-8")
        yield paths


def run(arguments: Sequence[str], folder: Path) -> float:
    """Run a command that writes ``folder``, unless it has been run; return its CPU minutes."""
    record = folder.with_suffix(".json")
    if not record.exists():
        print(" ".join(("biloom", *arguments)), flush=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        biloom = Path(sys.executable).with_name("biloom")
        subprocess.run([biloom, *arguments], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        record.write_text(json.dumps({"cpu_minutes": used / 60}))
    return float(json.loads(record.read_text())["cpu_minutes"])


def rows_of(folder: Path) -> dict[str, Score]:
    """Return the scores in the table of a task folder, by the short name of the row."""
    metrics = json.loads((folder / "metrics.json").read_text())
    if "table" in metrics:
        found = {row["name"]: row["scores"]["accuracy"] for row in metrics["table"]}
        texts = metrics["dev"]
    else:
        found = {name: row["scores"]["f1"] for name, row in metrics["rows"].items()}
        texts = metrics["dev_sentences"]
    return {
        short(name): Score(score["value"], score["low"], score["high"], texts)
        for name, score in found.items()
    }


def short(name: str) -> str:
    """Return the name of a row without what differs between folds."""
    for detail in (" (", ", mean", ", logistic"):
        name = name.partition(detail)[0]
    return name


def pooled(scores: Sequence[Score]) -> Score:
    """Return the score over the texts of all folds, with Wilson's interval of a share."""
    if len(scores) == 1:
        return scores[0]
    n = sum(one.texts for one in scores)
    p = sum(one.value * one.texts for one in scores) / n
    middle = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    return Score(p, middle - half, middle + half, n)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run all commands of a task, print its table, and return its rows and differences."""
    task = TASKS[name]
    model = options.chinese if task.chinese else options.english
    out, data = options.out / name, options.data
    if task.dev is None:
        files = list(folds(data / task.train, out / "folds"))
    else:
        files = [(data / task.train, data / task.dev)]
    rows: dict[str, dict[str, Any]] = {}
    for kind, settings in (CLASSIFICATION if task.command == "classify" else TAGGING).items():
        if options.runs and kind not in options.runs:
            continue
        found: dict[str, list[Score]] = {}
        minutes = 0.0
        for number, (train, dev) in enumerate(files):
            folder = out / f"{kind}-{number}"
            arguments = [
                *(task.command, "train", str(train), "--model", str(model), "--out", str(folder)),
                *(f"dev={dev}", f"seeds={options.seeds}", *settings, *task.settings),
            ]
            minutes += run(arguments, folder)
            for row, score in rows_of(folder).items():
                found.setdefault(row, []).append(score)
        for row, scores in found.items():
            score = pooled(scores)
            rows[row] = {
                **{"score": score.value, "low": score.low, "high": score.high},
                "cpu_minutes": minutes,
            }
    print(f"\n{name}: {'accuracy' if task.command == 'classify' else 'F1'}", flush=True)
    for row, one in rows.items():
        print(
            f"  {row:<40} {100 * one['score']:5.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"
            f"  {one['cpu_minutes']:6.1f} CPU minutes",
            flush=True,
        )
    differences = {
        f"{more} less {less}": rows[more]["score"] - rows[less]["score"]
        for more, less in DIFFERENCES
        if more in rows and less in rows
    }
    for pair, value in differences.items():
        print(f"  {pair}: {100 * value:+.1f}")
    return {"rows": rows, "differences": differences}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--english", type=Path)
    parser.add_argument("--chinese", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--runs", nargs="+", choices=[*CLASSIFICATION, *TAGGING])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    options.data = options.data or Path(os.environ["BILOOM_TEST_DATA"]) / "labelled"
    options.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in options.tasks:
        if options.chinese if TASKS[name].chinese else options.english:
            results[name] = measure(name, options)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
