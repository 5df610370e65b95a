"""Recurrent layers of each kind, with equal numbers of weights and equal CPU time, on a small corpus.

    python benchmarks/cells.py OUT [--text ptb] [--seconds 500] [--seeds 3] [--rates 1] [KEY=VALUE ...]

A kind is one of `model.recurrent.kind`, with its number of layers and, optionally, further settings of
model.recurrent, settings of train, and learning rates in place of `--rates`:
`--kinds lstm:2,hgrn2:2:expansion=8,sru:2:train.optimizer.kind=adam:rates=0.002/0.004`. Each has about as
many weights as the network of the shipped config of the text, by its `hidden`. HGRN2 keeps the width of that
network by its projection.

- The CPU seconds of a start and of a step are measured once for each kind, by short trainings of all kinds
  in turns, because the speed of a machine varies. A training has as many steps as fit in `--seconds`.
- With the first seed, each of the learning rates `--rates` is tried. The other seeds have the rate with the
  lowest perplexity, the geometric mean of both directions'.
- Each model is trained by `biloom train`, evaluated on the validation text, exported, and probed for word
  senses by `senses.py`, each with one thread. `cpu_seconds` is that of the whole train command, with its
  start and its evaluation, and null if the training was interrupted. A training that fails is listed with
  its message.

OUT keeps each finished run and these seconds. After an interruption, the same command goes on.
KEY=VALUE are settings for all kinds, such as model.recurrent.dropout=0.1. The data folder (`--data`, default
$BILOOM_TEST_DATA) has lm/ptb, lm/wikitext-2 and labelled. The last line has all figures as JSON.
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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lightning_modules.recurrent_config import HGRN2Config
from lightning_modules.sizes import parameter_count
from lightning_modules.training.weights.clusters import cutoffs_of, output_counts
from pipeline.config.load import load_config
from preprocess.shards.format import Corpus

TURNS, SHORT = 2, (50, 350)
"""Short trainings: how many of each kind, and their numbers of steps."""
LARGEST = 1 << 13
"""Bound of the hidden size."""
PYTHON = (sys.executable, "-m", "pipeline.cli")
Figures = dict[str, Any]


class Kind(NamedTuple):
    """Recurrent layers of a kind, as large as the others.

    Attributes:
        label: as given by `--kinds`.
        settings: overrides of the shipped config.
        hidden: hidden size.
        parameters: number of weights of the whole network.
        rates: learning rates to try.
    """

    label: str
    settings: list[str]
    hidden: int
    parameters: int
    rates: tuple[float, ...]


class Cost(NamedTuple):
    """CPU seconds of a train command without its steps, and of a step."""

    start: float
    step: float


class Comparison:
    """The trainings of a text.

    Args:
        out: folder of all results.
        options: command-line options.
    """

    def __init__(self, out: Path, options: argparse.Namespace) -> None:
        self._out, self._text, self._settings = out, options.text, options.settings
        self._data, self._rates = options.data.absolute(), options.rates
        self._where = self._data / "lm" / options.text
        corpus = f"{out}/corpus"
        self._given = [
            *("tracking.wandb=off", "train.device=cpu", "train.devices=1"),
            *(f"prepare.tokenizer={corpus}/tokenizer", f"train.corpus={corpus}/prepare"),
            *options.settings,
        ]
        for stage in ("tokenizer", "prepare"):
            biloom(self._where, stage, self._text, f"run.output={corpus}", *options.settings)
        self.corpus = Corpus.open(f"{corpus}/prepare")

    def kind(self, label: str) -> Kind:
        """Return the layers that `--kinds` names, with the hidden size that fits best."""
        name, layers, *more = label.split(":")
        settings = [f"model.recurrent.kind={name}", f"model.recurrent.layers={layers}"]
        rates, given = self._rates.split(","), []
        for setting in more:
            if setting.startswith("rates="):
                rates = setting.removeprefix("rates=").split("/")
            elif setting.startswith("train."):
                settings.append(setting)
            else:
                given.append(setting)
        settings += [f"model.recurrent.{setting}" for setting in given]
        wanted, unit = self._parameters([]), 1
        if name == "hgrn2":
            width = load_config([self._text], self._settings).model.recurrent.direction_width
            settings.append(f"model.recurrent.projection={width}")
            chosen = dict(setting.split("=") for setting in given)
            unit = int(chosen.get("expansion", HGRN2Config().expansion))
        low, high = (
            1,
            LARGEST // unit,
        )  # more weights than wanted with ``high``, if not with ``low``
        while high - low > 1:
            middle = (low + high) // 2
            few = self._parameters([*settings, f"model.recurrent.hidden={middle * unit}"]) <= wanted
            low, high = (middle, high) if few else (low, middle)
        found = {
            count * unit: self._parameters([*settings, f"model.recurrent.hidden={count * unit}"])
            for count in (low, high)
        }
        hidden = min(found, key=lambda size: abs(found[size] - wanted))
        settings.append(f"model.recurrent.hidden={hidden}")
        return Kind(label, settings, hidden, found[hidden], tuple(map(float, rates)))

    def cost(self, kinds: list[Kind]) -> dict[str, Cost]:
        """Return the CPU seconds of each kind's train command, measured once by short trainings."""
        kept = self._out / "cost.json"
        known: dict[str, Cost] = {}
        if kept.exists():
            known = {label: Cost(*cost) for label, cost in json.loads(kept.read_text()).items()}
        new = [kind for kind in kinds if kind.label not in known]
        taken = [
            {kind.label: [self._short(kind, steps) for steps in SHORT] for kind in new}
            for _ in range(TURNS)
        ]
        for kind in new:
            few, many = np.mean([turn[kind.label] for turn in taken], axis=0)
            step = (many - few) / (SHORT[1] - SHORT[0])
            known[kind.label] = Cost(few - step * SHORT[0], step)
        kept.write_text(json.dumps(known))
        return known

    def _short(self, kind: Kind, steps: int) -> float:
        folder = self._out / "short"
        shutil.rmtree(folder, ignore_errors=True)
        rate = f"train.learning_rate={kind.rates[0]}"
        return biloom(self._where, "train", self._text, *self._trained(kind, folder, steps), rate)

    def _trained(self, kind: Kind, folder: Path, steps: int) -> tuple[str, ...]:
        return (
            *(*self._given, *kind.settings, f"run.output={folder}"),
            *(f"train.steps={steps}", f"train.evaluate_steps={steps}"),
        )

    def run(self, kind: Kind, steps: int, rate: float, seed: int) -> Figures:
        """Train, evaluate and probe a model, unless it is done; return its figures."""
        folder = self._out / "runs" / f"{re.sub('[:/]', '-', kind.label)}-{rate:g}-{seed}"
        kept = folder / "result.json"
        if kept.exists():
            done: Figures = json.loads(kept.read_text())
            return done
        interrupted = (folder / "train").exists()
        settings = (
            *self._trained(kind, folder, steps),
            *(f"train.learning_rate={rate}", f"train.seed={seed}"),
        )
        figures: Figures = {
            **{"kind": kind.label, "hidden": kind.hidden, "parameters": kind.parameters},
            **{"steps": steps, "rate": rate, "seed": seed},
        }
        try:
            seconds = biloom(self._where, "train", self._text, *settings)
            for stage in ("evaluate", "export"):
                biloom(self._where, stage, self._text, *settings)
            figures |= perplexities(folder)
            figures |= {"cpu_seconds": None if interrupted else seconds, **self._senses(folder)}
        except subprocess.CalledProcessError as error:
            figures["failure"] = error.stderr.strip().splitlines()[-1:]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(figures))
        return figures

    def _parameters(self, settings: list[str]) -> int:
        config = load_config([self._text], [*self._given, *settings])
        model, train = config.model, config.train
        cutoffs = cutoffs_of(model, train, output_counts(self.corpus, model, train))
        return parameter_count(model, self.corpus.vocabulary, cutoffs)

    def _senses(self, folder: Path) -> Figures:
        """Return the scores of each layer in both tasks of `senses.py`."""
        command = [sys.executable, str(Path(__file__).parent / "senses.py"), f"{folder}/export"]
        command += [
            "--data",
            f"{self._data}/labelled",
            *(["--lower"] if self._text == "ptb" else []),
        ]
        run = subprocess.run(command, env=one_thread(), capture_output=True, text=True, check=True)
        found: Figures = json.loads(run.stdout.splitlines()[-1])
        return found


def biloom(where: Path, *arguments: str) -> float:
    """Run a command of biloom in a folder with one thread; return its CPU seconds.

    Raises:
        CalledProcessError: if it fails; it has what the command printed.
    """
    before = sum(os.times()[2:4])
    subprocess.run(
        [*PYTHON, *arguments],
        cwd=where, env=one_thread(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sum(os.times()[2:4]) - before


def perplexities(run: Path) -> Figures:
    """Return the perplexity of each direction from the stage evaluate of a run folder."""
    details = json.loads((run / "evaluate" / "manifest.json").read_text())["details"]
    return {way: details[f"{way}_perplexity"] for way in ("forward", "backward")}


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def perplexity(figures: Figures) -> float:
    """Return the geometric mean of both directions', or infinity for a run that failed."""
    if "failure" in figures:
        return math.inf
    return math.sqrt(figures["forward"] * figures["backward"])


def compared(
    comparison: Comparison, kind: Kind, steps: int, options: argparse.Namespace
) -> Figures:
    """Train a kind with all seeds; print and return its figures."""
    first = [comparison.run(kind, steps, rate, 1) for rate in kind.rates]
    best = min(first, key=perplexity)
    runs = [best]
    if "failure" not in best:
        others = range(2, options.seeds + 1)
        runs += [comparison.run(kind, steps, best["rate"], seed) for seed in others]
    whole = [run for run in runs if "failure" not in run]
    for run in (*first, *runs[1:]):
        print(f"  {kind.label} rate {run['rate']:g} seed {run['seed']}: {shown(run)}")
    summary: Figures = {"parameters": kind.parameters, "hidden": kind.hidden, "steps": steps}
    summary |= {"rate": best["rate"], "seeds": len(whole), "runs": [*first, *runs[1:]]}
    if whole:
        summary |= {
            way: statistics.mean(run[way] for run in whole) for way in ("forward", "backward")
        }
        for task in ("senses", "same_sense"):
            summary[task] = {
                layer: statistics.mean(run[task][layer] for run in whole)
                for layer in whole[0][task]
            }
    return summary


def shown(run: Figures) -> str:
    if "failure" in run:
        return " ".join(["failed:", *run["failure"]])
    seconds = "" if run["cpu_seconds"] is None else f", {run['cpu_seconds']:.0f} CPU s"
    best = max(run["senses"], key=run["senses"].get)
    return (
        f"forward {run['forward']:.1f}, backward {run['backward']:.1f}, "
        f"senses {100 * run['senses'][best]:.1f} % ({best}){seconds}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--text", choices=["ptb", "wikitext-2"], default="ptb")
    parser.add_argument("--data", type=Path, default=os.environ.get("BILOOM_TEST_DATA"))
    parser.add_argument("--kinds", default="lstm:2,gru:2,hgrn2:2,sru:2")
    parser.add_argument("--seconds", type=float, default=500, help="CPU seconds of a training")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--rates", default="1", help="learning rates")
    options = parser.parse_intermixed_args()
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(out, options)
    request = out / "request.json"
    asked = {name: getattr(options, name) for name in ("text", "seconds", "settings")}
    if request.exists() and json.loads(request.read_text()) != asked:
        parser.error(f"{out} has runs of {request.read_text()}; choose another folder")
    request.write_text(json.dumps(asked))
    kinds = [comparison.kind(label) for label in options.kinds.split(",")]
    costs = comparison.cost(kinds)
    figures: dict[str, Figures] = {}
    for kind in kinds:
        cost = costs[kind.label]
        steps = max(1, round((options.seconds - cost.start) / cost.step))
        print(f"{kind.label}: hidden {kind.hidden}, {kind.parameters:,} weights, "
              f"{1e3 * cost.step:.1f} CPU ms a step, {steps:,} steps", flush=True)  # fmt: skip
        figures[kind.label] = compared(comparison, kind, steps, options)
        figures[kind.label] |= cost._asdict()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
