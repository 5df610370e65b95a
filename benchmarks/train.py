"""Training speed on a CPU, compared with nn.LSTM and nn.AdaptiveLogSoftmaxWithLoss.

    python benchmarks/train.py [--steps 30] [--threads 2]          (about four minutes on two cores)

Everything runs in float32 on random words with a Zipf distribution. A step is forward, backward,
clipping and optimiser (fused Adam) on a window whose targets are already assigned to the clusters of
the output layer. biloom runs in a Lightning Trainer, the baseline in a plain loop. They run in separate
processes that take turns in blocks of steps; a ratio compares the medians. biloom runs with the memory settings of training
(lightning_modules/allocator.py), the baseline once without and once with them.

- small_over_baseline, medium_over_baseline (and ..._memory_kept): tokens/s divided by those of two
  nn.LSTM(proj_size) with nn.AdaptiveLogSoftmaxWithLoss and the same cutoffs, without clipping of
  states, residual connections and dropout. Small: vocabulary 16,000, embedding 128, two LSTM layers
  per direction (512 hidden, 128 projected), 32 rows x 20 tokens. Medium: 64,000, 256, (1024, 256),
  64 x 20. A token is one position of a row, trained in both directions.
- config_a_tokens_per_s: character CNN (2,048 filters, one highway layer, projection 128), LSTM (1024,
  128), clipping, residual connections, dropout 0.1, 32 x 20, 12,028 words, sampled softmax with 4,096
  samples; the time includes making windows from ids. AllenNLP's modules are not run here. They reached
  259 tokens/s where torch.mm with 2 threads reached 144 GFLOP/s, so
  config_a_over_259 = tokens/s / 259 x 144 / sgemm_gflops, the GFLOP/s of torch.mm in this run.
  onednn_gflops is the same product by nn/recurrent/matmul.py.
- data_wait_share: the fraction of time that `biloom train` with the small network waits for batches.
- two_process_efficiency: the speed of `biloom train` with two processes of one thread and 64 rows
  each, divided by twice that of one process with 64 rows.
- two_process_cpu_efficiency: the same from CPU seconds, which other processes of the machine disturb
  less. It leaves out the time that a process waits for the other one.
- two_process_limit, two_trainings_efficiency: the same for two independent trainings with 64 rows and
  one core each, counting the slower of both in each step, or their mean. two_process_over_limit is
  two_process_efficiency / two_process_limit, the cost of cooperation. All trainings take turns of a
  few seconds; figures are medians over the turns, whose ratios go to standard error.

The last line has all figures as JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from in_turns import Turns, fit_in_turns, step_in_turns
from torch import Tensor, nn
from trainings import processes

from lightning_modules.allocator import keep_memory
from lightning_modules.config import ModelConfig
from lightning_modules.nn.heads.cutoffs import choose_cutoffs
from lightning_modules.nn.inputs.word_types import types_of_window
from lightning_modules.nn.recurrent.matmul import times_transposed
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.window_loader import Batch
from preprocess.tokenizers.spellings import Spellings

TURNS = 6
PEER_TOKENS, PEER_GFLOPS = 259, 144

SHAPES: dict[str, dict[str, int]] = {
    "small": {"vocabulary": 16_000, "hidden": 512, "projection": 128, "rows": 32},
    "medium": {"vocabulary": 64_000, "hidden": 1024, "projection": 256, "rows": 64},
}
UNROLL = 20
WORDS_A, LETTERS = 12_028, "etaoinshrdlcumwfgypbvkjxqz"


def zipf_counts(vocabulary: int, total: float = 1e9) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return the counts by rank of a text of ``total`` words under Zipf's law."""
    share = 1 / np.arange(1, vocabulary + 1)
    return (share / share.sum() * total).astype(np.uint64) + np.uint64(1)


def draw_ids(vocabulary: int, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    """Return random ids with the distribution of `zipf_counts`."""
    counts = zipf_counts(vocabulary).astype(np.float64)
    ends = np.cumsum(counts / counts.sum())
    draw = np.random.RandomState(seed).random_sample(shape)
    return np.minimum(np.searchsorted(ends, draw), vocabulary - 1)


def train_ours(
    model: dict[str, Any], rows: int, vocabulary: int, turns: Turns, spelled: int = 0
) -> None:
    """Train by biloom in a Trainer, in turns.

    ``spelled`` is the number of bytes of a word for a character CNN; 0 means no CNN.
    """
    config = ModelConfig.model_validate(model)
    counts = zipf_counts(vocabulary)
    cutoffs: tuple[int, ...] = ()
    if config.head.kind == "adaptive_softmax":
        cutoffs = choose_cutoffs(
            counts, config.recurrent.direction_width, config.head.div, 2 * rows * UNROLL
        )
    train = TrainConfig(rows=rows, unroll=UNROLL, warmup_steps=0)
    module = LitBiLM(config, train, vocabulary, cutoffs, torch.arange(vocabulary))
    print(f"  {module.compile_cell()}", file=sys.stderr)
    encode = None
    if spelled:
        words = Spellings(spelling, vocabulary, spelled)
        encode = partial(types_of_window, spellings=words)
    make = WindowMaker(np.arange(vocabulary), cutoffs, encode)
    shape = (8, 2, UNROLL, rows)
    ids, targets = draw_ids(vocabulary, shape, 1), draw_ids(vocabulary, shape, 2)
    made = [] if spelled else [make(i, t) for i, t in zip(ids, targets, strict=True)]

    def batch(number: int) -> Batch:
        place = number % 8
        return Batch(number, (made[place] if made else make(ids[place], targets[place]),))

    fit_in_turns(module, batch, turns, accelerator="cpu")


def spelling(number: int) -> str:
    """Return a random word for a rank; frequent words are shorter."""
    size = 2 + int(number**0.5) % 9 if number < 2000 else 5 + number % 8
    draw = np.random.RandomState(number)
    return "".join(LETTERS[i] for i in draw.randint(0, 26, size))


def baseline(hidden: int, projection: int, rows: int, vocabulary: int) -> Callable[[int], None]:
    """Return the same step with torch's modules, one stack per direction."""
    cutoffs = choose_cutoffs(zipf_counts(vocabulary), projection, 4.0, 2 * rows * UNROLL)
    embedding = nn.Embedding(vocabulary, projection)
    stacks = [nn.LSTM(projection, hidden, 2, proj_size=projection) for _ in range(2)]
    head = nn.AdaptiveLogSoftmaxWithLoss(projection, vocabulary, list(cutoffs), 4.0)
    modules = nn.ModuleList([embedding, *stacks, head])
    weights = list(modules.parameters())
    optimizer = torch.optim.Adam(weights, 1e-3, fused=True)
    states = [(torch.zeros(2, rows, projection), torch.zeros(2, rows, hidden)) for _ in range(2)]
    shape = (8, 2, UNROLL, rows)
    ids = torch.from_numpy(draw_ids(vocabulary, shape, 1))
    targets = torch.from_numpy(draw_ids(vocabulary, shape, 2))

    def step(number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        tops = []
        for way, stack in enumerate(stacks):
            top, state = stack(embedding(ids[number % 8, way]), states[way])
            states[way] = tuple(part.detach() for part in state)  # type: ignore[assignment]
            tops.append(top.reshape(-1, projection))
        loss = head(torch.cat(tops), targets[number % 8].reshape(-1)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()

    return step


def seconds(step: Callable[[int], object], numbers: range) -> list[float]:
    taken = []
    for number in numbers:
        began = time.perf_counter()
        step(number)
        taken.append(time.perf_counter() - began)
    return taken


def asked_turns() -> Turns:
    """Read numbers of steps from standard input, and write the seconds of each of these steps."""
    yield 3
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps((yield int(line))), flush=True)


def worker(who: str, name: str) -> None:
    """Take the steps that standard input asks for."""
    shape = SHAPES[name]
    with nullcontext() if who == "plain" else keep_memory():
        if who == "ours":
            stack = {
                **{"kind": "lstm", "residual": False, "cell_clip": None, "projection_clip": None},
                **{"hidden": shape["hidden"], "projection": shape["projection"], "dropout": 0},
            }
            model = {"input": {"kind": "embedding", "dropout": 0}, "recurrent": stack}
            train_ours(model, shape["rows"], shape["vocabulary"], asked_turns())
        else:
            warnings.simplefilter("ignore")
            step_in_turns(baseline(**shape), asked_turns())


def compare(name: str, steps: int) -> dict[str, float]:
    """Measure tokens/s of biloom and of the baseline, the latter without and with memory settings."""
    taken: dict[str, list[float]] = {"ours": [], "plain": [], "kept": []}
    started = {}
    for who in taken:
        command = [sys.executable, *sys.argv, "--worker", f"{who} {name}"]
        started[who] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert read_line(started[who]) == "ready"
    for _ in range(TURNS):
        for who, process in started.items():
            assert process.stdin
            print(max(1, steps // TURNS), file=process.stdin, flush=True)
            taken[who] += json.loads(read_line(process))
    for process in started.values():
        process.communicate()
    tokens = SHAPES[name]["rows"] * UNROLL
    speed = {who: tokens / statistics.median(times) for who, times in taken.items()}
    print(f"{name}: biloom {speed['ours']:,.0f} tokens/s, baseline {speed['plain']:,.0f}, "
          f"with memory settings {speed['kept']:,.0f}")  # fmt: skip
    return {
        f"{name}_over_baseline": speed["ours"] / speed["plain"],
        f"{name}_over_baseline_memory_kept": speed["ours"] / speed["kept"],
        f"{name}_tokens_per_s": speed["ours"],
    }


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def config_a(steps: int) -> dict[str, float]:
    filters = [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]]
    model = {
        "input": {"kind": "char_cnn", "dim": 16, "filters": filters, "highway": 1},
        "recurrent": {"kind": "lstm", "hidden": 1024, "projection": 128},
        "head": {"kind": "sampled_softmax", "samples": 4096},
    }
    flops: list[float] = []
    onednn: list[float] = []
    taken: list[float] = []

    def turns() -> Turns:
        yield 3
        for _ in range(TURNS):
            flops.append(gflops(torch.mm))
            onednn.append(gflops(times_transposed))
            taken.extend((yield max(1, steps // TURNS)))

    with keep_memory():
        train_ours(model, 32, WORDS_A, turns(), spelled=50)
    speed, sgemm = 32 * UNROLL / statistics.median(taken), statistics.median(flops)
    print(f"config A: {speed:,.0f} tokens/s at {sgemm:.0f} GFLOP/s of torch.mm")
    return {
        "config_a_tokens_per_s": speed,
        "sgemm_gflops": sgemm,
        "onednn_gflops": statistics.median(onednn),
        "config_a_over_259": speed / PEER_TOKENS * PEER_GFLOPS / sgemm,
    }


def gflops(multiply: Callable[[Tensor, Tensor], Tensor], size: int = 2048) -> float:
    """Return the GFLOP/s of a product of square matrices, the best of five."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    times = seconds(lambda _: multiply(a, b), range(5))
    return 2 * size**3 / min(times) / 1e9


def whole_product(steps: int) -> dict[str, float]:
    """Measure `biloom train` with one and two processes of one thread, in turns of about ten steps."""
    lines = draw_ids(16_000, (50_000, 20), 3)
    text = [" ".join(f"w{word}" for word in line) + "\n" for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        figures = processes(folder, text, max(1, steps // 2))
    print(f"biloom train: two processes have {figures['two_process_efficiency']:.2f} of twice the speed "
          f"of one; two independent trainings at the same time have {figures['two_process_limit']:.2f}")  # fmt: skip
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30, help="timed steps per measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=["small", "medium", "config_a", "product"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.worker:
        worker(*options.worker.split())
        return
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "small": lambda: compare("small", options.steps),
        "medium": lambda: compare("medium", options.steps),
        "config_a": lambda: config_a(options.steps),
        "product": lambda: whole_product(options.steps),
    }
    figures: dict[str, float] = {}
    if options.only:
        figures = parts[options.only]()
    else:
        # Each in a separate process, because memory left by one slows the next.
        for name in parts:
            command = [sys.executable, *sys.argv, "--only", name]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            print(printed, end="")
            figures |= json.loads(printed.splitlines()[-1])
    print(json.dumps({key: round(value, 4) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
