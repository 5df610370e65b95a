"""Training steps beside nn.LSTM + nn.AdaptiveLogSoftmaxWithLoss, and the road of a batch to them.

    python benchmarks/train.py [--steps 30] [--threads 2]          (some four minutes on two cores)

All on the CPU in float32, on words drawn with a Zipf distribution, since speed knows no grammar. A
step is forward, backward, clip and optimiser (fused Adam), on a window of every row that is dealt to
the output's clusters beforehand. Ours and the baseline, in a process each, take turns in blocks of
steps, and a ratio is that of the medians. Ours runs with the memory kept that a step frees, as in
training (lightning_modules/allocator.py); the baseline once as torch runs by itself, once likewise.

- small_over_baseline, medium_over_baseline (and ..._memory_kept): tokens/s over two nn.LSTM(proj_size) with
  nn.AdaptiveLogSoftmaxWithLoss of the same cutoffs, clips and residual off, no dropout. Small:
  vocabulary 16,000, embedding 128, LSTM 512 / 128, two layers each way, 32 rows x 20; medium: 64,000,
  256, 1024 / 256, 64 x 20. A token is a position of a row, both directions trained.
- config_a_tokens_per_s: the character CNN (2,048 filters, one highway, projection 128), LSTM 1024 / 128,
  clips, residual, dropout .1, 32 x 20, 12,028 words, sampled softmax of 4,096; the windows made from
  ids in the same time. AllenNLP's modules, which made 259 tokens/s where a 2-thread sgemm made 144
  GFLOP/s, are not run here: config_a_over_259 = tokens/s / 259 x 144 / sgemm_gflops of this run.
  sgemm is torch.mm; onednn_gflops is the same product by nn/matmul.py.
- data_wait_share, two_process_efficiency: of `biloom train` itself, the small network, one thread a
  process: the share of the time in which a step waits for its batch; and the speed of two processes
  with 64 rows each over twice that of one with 64.
- two_process_limit, two_trainings_efficiency: the same of two trainings at once, of 64 rows and a core
  each, that know nothing of one another: with the slower of both in each step, as processes have it
  that wait for one another, and with the mean. two_process_over_limit is what working together costs
  beyond that. All take turns of seconds; medians over the turns, whose ratios go to standard error.

The last line is one JSON object of all figures.
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
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from trainings import processes

from lightning_modules.allocator import memory_kept
from lightning_modules.config import ModelConfig
from lightning_modules.nn.heads.cutoffs import choose_cutoffs
from lightning_modules.nn.inputs.word_types import types_of_window
from lightning_modules.nn.recurrent.matmul import times_transposed
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.datamodule import Batch
from lightning_modules.training.lit_bilm import LitBiLM
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
    """Counts of a text of ``total`` words by Zipf's law, by rank."""
    share = 1 / np.arange(1, vocabulary + 1)
    return (share / share.sum() * total).astype(np.uint64) + np.uint64(1)


def draw_ids(vocabulary: int, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    """Words with that distribution."""
    counts = zipf_counts(vocabulary).astype(np.float64)
    ends = np.cumsum(counts / counts.sum())
    draw = np.random.RandomState(seed).random_sample(shape)
    return np.minimum(np.searchsorted(ends, draw), vocabulary - 1)


class Alone(LitBiLM):
    """The product's training step without a Trainer around it."""

    def manual_backward(self, loss: Tensor, *arguments: Any, **options: Any) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def _no_sync(self) -> AbstractContextManager[None]:
        return nullcontext()


def ours(
    model: dict[str, Any], rows: int, vocabulary: int, spelled: int = 0, clip: float = 1.0
) -> Callable[[int], None]:
    """Step number -> one training step of biloom; ``spelled``: bytes of a word, for a CNN."""
    config = ModelConfig.model_validate(model)
    counts = zipf_counts(vocabulary)
    cutoffs: tuple[int, ...] = ()
    if config.head.kind == "adaptive_softmax":
        cutoffs = choose_cutoffs(
            counts, config.recurrent.direction_width, config.head.div, 2 * rows * UNROLL
        )
    train = TrainConfig(rows=rows, unroll=UNROLL, warmup_steps=0, clip_norm=clip)
    module = Alone(config, train, vocabulary, cutoffs, torch.arange(vocabulary))
    print(f"  {module.network.recurrent.compile_cell('auto', rows)}", file=sys.stderr)
    module.on_train_start()
    encode = None
    if spelled:
        words = Spellings(spelling, vocabulary, spelled)
        encode = partial(types_of_window, spellings=words)
    make = WindowMaker(np.arange(vocabulary), cutoffs, encode)
    shape = (8, 2, UNROLL, rows)
    ids, targets = draw_ids(vocabulary, shape, 1), draw_ids(vocabulary, shape, 2)
    made = [] if spelled else [make(i, t) for i, t in zip(ids, targets, strict=True)]

    def step(number: int) -> None:
        place = number % 8
        window = made[place] if made else make(ids[place], targets[place])
        module.training_step(Batch(module.step, ((window,),)), 0)

    return step


def spelling(number: int) -> str:
    """A word of natural length for a rank: frequent ones are short."""
    size = 2 + int(number**0.5) % 9 if number < 2000 else 5 + number % 8
    draw = np.random.RandomState(number)
    return "".join(LETTERS[i] for i in draw.randint(0, 26, size))


def baseline(hidden: int, projection: int, rows: int, vocabulary: int) -> Callable[[int], None]:
    """The same step with torch's own modules, two stacks one after the other."""
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


def seconds(step: Callable[[int], None], numbers: range) -> list[float]:
    taken = []
    for number in numbers:
        began = time.perf_counter()
        step(number)
        taken.append(time.perf_counter() - began)
    return taken


def worker(who: str, name: str) -> None:
    """Answer each line with the seconds of that many steps."""
    shape = SHAPES[name]
    with nullcontext() if who == "plain" else memory_kept():
        if who == "ours":
            stack = {
                **{"kind": "lstm", "residual": False, "cell_clip": None, "projection_clip": None},
                **{"hidden": shape["hidden"], "projection": shape["projection"], "dropout": 0},
            }
            model = {"input": {"kind": "embedding", "dropout": 0}, "recurrent": stack}
            step = ours(model, shape["rows"], shape["vocabulary"])
        else:
            warnings.simplefilter("ignore")
            step = baseline(**shape)
        seconds(step, range(3))
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(seconds(step, range(int(line)))), flush=True)


def compare(name: str, steps: int) -> dict[str, float]:
    """Tokens/s of ours and of the baseline with malloc as it is and as training has it, in turns."""
    taken: dict[str, list[float]] = {"ours": [], "plain": [], "kept": []}
    started = {}
    for who in taken:
        command = [sys.executable, *sys.argv, "--worker", f"{who} {name}"]
        started[who] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert told(started[who]) == "ready"
    for _ in range(TURNS):
        for who, process in started.items():
            assert process.stdin
            print(max(1, steps // TURNS), file=process.stdin, flush=True)
            taken[who] += json.loads(told(process))
    for process in started.values():
        process.communicate()
    tokens = SHAPES[name]["rows"] * UNROLL
    speed = {who: tokens / statistics.median(times) for who, times in taken.items()}
    print(f"{name}: ours {speed['ours']:,.0f} tokens/s, baseline {speed['plain']:,.0f}, "
          f"with memory kept {speed['kept']:,.0f}")  # fmt: skip
    return {
        f"{name}_over_baseline": speed["ours"] / speed["plain"],
        f"{name}_over_baseline_memory_kept": speed["ours"] / speed["kept"],
        f"{name}_tokens_per_s": speed["ours"],
    }


def told(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def config_a(steps: int) -> dict[str, float]:
    filters = [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]]
    model = {
        "input": {"kind": "char_cnn", "dim": 16, "filters": filters, "highway": 1},
        "recurrent": {"kind": "lstm", "hidden": 1024, "projection": 128},
        "head": {"kind": "sampled_softmax", "samples": 4096},
    }
    flops, onednn, taken = [], [], []
    with memory_kept():
        step = ours(model, 32, WORDS_A, spelled=50)
        seconds(step, range(3))
        for turn in range(TURNS):
            flops.append(gflops(torch.mm))
            onednn.append(gflops(times_transposed))
            taken += seconds(step, range(turn, turn + max(1, steps // TURNS)))
    speed, sgemm = 32 * UNROLL / statistics.median(taken), statistics.median(flops)
    print(f"config A: {speed:,.0f} tokens/s where sgemm makes {sgemm:.0f} GFLOP/s")
    return {
        "config_a_tokens_per_s": speed,
        "sgemm_gflops": sgemm,
        "onednn_gflops": statistics.median(onednn),
        "config_a_over_259": speed / PEER_TOKENS * PEER_GFLOPS / sgemm,
    }


def gflops(multiply: Callable[[Tensor, Tensor], Tensor], size: int = 2048) -> float:
    """GFLOP/s of a product of square matrices, the best of some."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    times = seconds(lambda _: multiply(a, b), range(5))
    return 2 * size**3 / min(times) / 1e9


def whole_product(steps: int) -> dict[str, float]:
    """`biloom train` in one process and in two, one thread each, in turns of some ten steps."""
    lines = draw_ids(16_000, (50_000, 20), 3)
    text = [" ".join(f"w{word}" for word in line) + "\n" for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        figures = processes(folder, text, max(1, steps // 2))
    print(f"biloom train: two processes make {figures['two_process_efficiency']:.2f} of twice what "
          f"one makes, where the slower of two trainings at once makes "
          f"{figures['two_process_limit']:.2f}")  # fmt: skip
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each")
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
        # Each in a process of its own: what one leaves in memory slows the next.
        for name in parts:
            command = [sys.executable, *sys.argv, "--only", name]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            print(told, end="")
            figures |= json.loads(told.splitlines()[-1])
    print(json.dumps({key: round(value, 4) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
