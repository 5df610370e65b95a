"""Recurrent layers of each kind, with equal numbers of weights and equal CPU time, on a small corpus.

    python benchmarks/cells.py OUT [--text ptb] [--seconds 500] [--seeds 3] [--rates 1] [KEY=VALUE ...]

A kind is one of `model.recurrent.kind`, with its number of layers and, optionally, further settings of
model.recurrent, settings of train, and learning rates in place of `--rates`:
`--kinds lstm:2,hgrn2:2:expansion=8,sru:2:train.optimizer.kind=adam:rates=0.002/0.004`. Each has about as
many weights as the network of the shipped config of the text, by its `hidden`. HGRN2 keeps the width of that
network by its projection.

- Each kind's CPU seconds per step are measured once, with random words, in turns of all kinds, because the
  speed of a machine varies. A training has `--seconds` divided by them as its number of steps.
- With the first seed, each of the learning rates `--rates` is tried. The other seeds have the rate with the
  lowest perplexity, the geometric mean of both directions'.
- Each model is trained by `biloom train`, evaluated on the validation text, exported, and probed for word
  senses by `senses.py`, each with one thread. `cpu_seconds` is that of the whole train command, with its
  start and its evaluation, and null if the training was interrupted. A training that fails is listed with
  its message.

OUT keeps each finished run and the seconds per step. After an interruption, the same command goes on.
KEY=VALUE are settings for all kinds, such as model.recurrent.dropout=0.1. The data folder (`--data`, default
$BILOOM_TEST_DATA) has lm/ptb, lm/wikitext-2 and labelled. The last line has all figures as JSON.
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from in_turns import fit_in_turns
from train import asked_turns, draw_ids, read_line

from lightning_modules.allocator import keep_memory
from lightning_modules.nn.heads.routes import ranks_of
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.recurrent_config import HGRN2Config
from lightning_modules.sizes import parameter_count
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.weights.clusters import cutoffs_of, output_counts
from lightning_modules.training.window_loader import Batch
from pipeline.config.load import load_config
from preprocess.shards.format import Corpus

TURNS, TURN = 6, 10
"""Turns of each kind, and steps of a turn, in which the seconds per step are measured."""
LARGEST = 1 << 13
"""Bound of the hidden size."""
WINDOWS = 8
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

    def seconds_per_step(self, kinds: list[Kind]) -> dict[str, float]:
        """Return the CPU seconds of a training step of each kind, measured once."""
        kept = self._out / "seconds.json"
        known: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
        new = [kind for kind in kinds if kind.label not in known]
        workers = {}
        for kind in new:
            command = [sys.executable, *sys.argv, "--worker", kind.label]
            workers[kind.label] = subprocess.Popen(
                command, env=one_thread(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert read_line(workers[kind.label]) == "ready", "see above"
        taken: dict[str, list[float]] = {label: [] for label in workers}
        for _ in range(TURNS):
            for label, worker in workers.items():
                assert worker.stdin
                print(TURN, file=worker.stdin, flush=True)
                taken[label] += json.loads(read_line(worker))
        for worker in workers.values():
            worker.communicate()
        known |= {label: statistics.median(times) for label, times in taken.items()}
        kept.write_text(json.dumps(known))
        return known

    def train_in_turns(self, kind: Kind) -> None:
        """Take the training steps that standard input asks for, on random words."""
        config = load_config([self._text], [*self._given, *kind.settings])
        model, train = config.model, config.train
        counts = output_counts(self.corpus, model, train)
        make = WindowMaker(ranks_of(counts), cutoffs_of(model, train, counts))
        shape = (WINDOWS, model.direction_count, train.unroll, train.rows)
        ids, targets = (draw_ids(len(counts), shape, seed) for seed in (1, 2))
        windows = [make(*pair) for pair in zip(ids, targets, strict=True)]
        module = LitBiLM.for_corpus(self.corpus, model, train)
        print(module.compile_cell(), file=sys.stderr)
        with keep_memory():
            fit_in_turns(
                module,
                lambda number: Batch(number, (windows[number % WINDOWS],)),
                asked_turns(),
                clock=time.process_time,
                accelerator="cpu",
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
            *(*self._given, *kind.settings, f"run.output={folder}"),
            *(f"train.steps={steps}", f"train.evaluate_steps={steps}"),
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
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(out, options)
    if options.worker:
        comparison.train_in_turns(comparison.kind(options.worker))
        return
    request = out / "request.json"
    asked = {name: getattr(options, name) for name in ("text", "seconds", "settings")}
    if request.exists() and json.loads(request.read_text()) != asked:
        parser.error(f"{out} has runs of {request.read_text()}; choose another folder")
    request.write_text(json.dumps(asked))
    kinds = [comparison.kind(label) for label in options.kinds.split(",")]
    seconds = comparison.seconds_per_step(kinds)
    figures: dict[str, Figures] = {}
    for kind in kinds:
        steps = max(1, round(options.seconds / seconds[kind.label]))
        print(f"{kind.label}: hidden {kind.hidden}, {kind.parameters:,} weights, "
              f"{1e3 * seconds[kind.label]:.1f} CPU ms a step, {steps:,} steps", flush=True)  # fmt: skip
        figures[kind.label] = compared(comparison, kind, steps, options)
        figures[kind.label]["seconds_per_step"] = seconds[kind.label]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
