"""A training step at ELMo's size on a GPU, counted without one: launches, memory traffic, copies, waits.

    python benchmarks/step_budget.py [--rows 128,256,384] [--kind hgrn2] [--operations]

It takes about a minute on one core. The model is that of `elmo_size.py`: two LSTM layers per direction (4096 hidden, 512 projected), ELMo's
character CNN and an adaptive softmax over 793,471 words, in bf16 autocast, with Adam and 20 tokens per row.
A step is one of `LitBiLM` in a Lightning Trainer, from the request for its window to the request for the
next one, so it has the copies of the window, the forward and the backward pass, the norm of the gradient,
clipping and the optimiser. It logs nothing, and no state is reset. Texts are random words with a Zipf
distribution and a fixed seed. Tensors are fake, so nothing is computed, and the gradient is always clipped.

`step_counter.py` says what counts. A cell that torch.compile makes counts as one kernel that reads and
writes each argument once. This is the least; the kernels that torch.compile generates may move more.
The passes of the recurrent layers are CUDA graphs, as on a GPU. `ops_outside_graphs` are the other operations,
which the host launches one by one, with the copies to the memory of the graphs.

The time is that of an H100 on paper: each operation takes as long as its bytes at 2.7 TB/s (of 3.35) or
its matrix product at 800 TFLOP/s (bf16; 60 in float32), whichever is longer. Launches take no time.
`--tb-per-s` and `--tflops` (of bf16, then of float32) replace these figures by those of another GPU.
`--kind` takes recurrent layers of another kind with as many weights; the parts "LSTM" and "cells" are then
those of this kind. The line "recurrent layers" has their operations, which follow one another: on a GPU, a
small one takes a few microseconds, whatever its bytes. Kinds without fused kernels run in operations of
torch. `--operations` also prints each kind of operation of each part, and `--small` counts a small network. The last
line has all figures as JSON; those without a number of rows are for the first one.
"""

import argparse
import json
from typing import Any

from elmo_size import STACKS, UNROLL, clusters, model_of, train_of, vocabulary_of, windows_of
from fake_gpu import fake_gpu, on_fake_gpu
from in_turns import Turns, fit_in_turns
from step_counter import H100, PARTS, Count, Device, StepCounter, Tally
from torch import device as cpu

from lightning_modules.config import ModelConfig
from lightning_modules.nn.window import Types, Window
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.window_loader import Batch

FUSED = ("lstm", "gru")
"""Kinds of recurrent layers that have fused kernels for a GPU."""


def count_step(
    model: ModelConfig,
    train: TrainConfig,
    vocabulary: int,
    cutoffs: tuple[int, ...],
    window: Window,
    device: Device = H100,
) -> Count:
    """Return the count of a training step on a window.

    It is the second step on this window. In the first one, the optimiser makes its state.

    Args:
        model: the network.
        train: settings of the training.
        vocabulary: number of ids. An id is its rank.
        cutoffs: first rank of each tail of an adaptive softmax.
        window: inputs and targets, on the CPU.
        device: the GPU whose times are counted.
    """
    counter = StepCounter(device)

    def turns() -> Turns:
        yield 1
        counter.is_on = True
        yield 1
        counter.is_on = False

    with fake_gpu(counter.compiled, counter.captured) as fake, counter:
        with fake:
            module = LitBiLM(model, train, vocabulary, cutoffs)
        fit_in_turns(
            module, lambda number: Batch(number, (window,)), turns(), strategy=on_fake_gpu()
        )
    return counter.count


RECURRENT = ("LSTM forward", "LSTM backward", "cells")


def at_rows(
    rows: int, device: Device, small: bool, kind: str, with_operations: bool
) -> dict[str, Any]:
    """Print the count at ELMo's size, and return its figures by name."""
    model = model_of(small, kind=kind)
    vocabulary, cutoffs = vocabulary_of(small), clusters(rows, small, kind)
    window, *_ = windows_of(rows, vocabulary, cutoffs, cpu("cpu"))
    assert isinstance(window.inputs, Types)
    assert window.routes
    types = sum(len(bucket) for bucket in window.inputs.characters)
    routed = ", ".join(f"{len(each):,}" for each in window.routes.rows)
    print(f"{rows} rows: {rows * UNROLL:,} tokens, {types:,} types; cutoffs {cutoffs}, "
          f"{routed} positions in the tails")  # fmt: skip
    train = train_of(rows, compile="on" if kind in FUSED else "auto")
    count = count_step(model, train, vocabulary, cutoffs, window, device)
    show(count, with_operations)
    total, recurrent = count.of(), Tally()
    for part in RECURRENT:
        recurrent.add(count.of(part))
    print(f"recurrent layers ({kind}): {recurrent.operations:,} operations, "
          f"{recurrent.bytes / 1e9:.3f} GB, {recurrent.seconds * 1e3:.3f} ms\n")  # fmt: skip
    return {
        f"types_{rows}": types,
        f"ops_{rows}": total.operations,
        f"gb_{rows}": round(total.bytes / 1e9, 3),
        f"tflop_{rows}": round(total.flops / 1e12, 3),
        f"ms_{rows}": round(total.seconds * 1e3, 2),
        f"tokens_per_s_{rows}": round(rows * UNROLL / total.seconds),
        f"recurrent_ops_{rows}": recurrent.operations,
        f"recurrent_gb_{rows}": round(recurrent.bytes / 1e9, 3),
        f"recurrent_ms_{rows}": round(recurrent.seconds * 1e3, 2),
        f"parts_ms_{rows}": {part: round(count.of(part).seconds * 1e3, 4) for part in PARTS},
        "ops_outside_graphs": total.operations - total.captured,
        "graphs": count.graphs,
        "copies": count.copies,
        "host_reads": count.reads,
    }


def show(count: Count, with_operations: bool) -> None:
    """Print the sums of each part and, if requested, of each kind of operation."""
    print(
        f"{'':<28}{'operations':>10}{'in graphs':>10}"
        f"{'GB read':>10}{'written':>10}{'GB':>10}{'TFLOP':>10}{'ms':>10}"
    )
    for part in (*PARTS, None):
        rows = {part or "total": count.of(part)}
        if with_operations and part:
            kinds = [(name, each) for (of, name), each in count.tallies.items() if of == part]
            rows |= {f"  {name}": each for name, each in sorted(kinds, key=lambda x: -x[1].bytes)}
        for name, tally in rows.items():
            gigabytes = (tally.loads / 1e9, tally.stores / 1e9, tally.bytes / 1e9)
            figures = (*gigabytes, tally.flops / 1e12, tally.seconds * 1e3)
            operations = f"{name:<28}{tally.operations:>10,}{tally.captured:>10,}"
            print(operations + "".join(f"{x:>10.3f}" for x in figures))
    print(f"copies to the device: {count.copies}; reads by the host: {count.reads}; "
          f"CUDA graphs: {count.graphs}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="128,256,384")
    parser.add_argument("--kind", choices=STACKS, default="lstm", help="of the recurrent layers")
    parser.add_argument("--operations", action="store_true", help="print each kind of operation")
    parser.add_argument("--small", action="store_true", help="count a small network")
    parser.add_argument("--tb-per-s", type=float, default=H100.bandwidth / 1e12)
    parser.add_argument("--tflops", default="800,60", help="of bf16, then of float32")
    options = parser.parse_args()
    bf16, float32 = (float(number) * 1e12 for number in options.tflops.split(","))
    device = Device(options.tb_per_s * 1e12, {2: bf16, 4: float32})
    figures: dict[str, Any] = {}
    for rows in map(int, options.rows.split(",")):
        # Figures without a number of rows are those of the first one.
        figures |= {
            **at_rows(rows, device, options.small, options.kind, options.operations),
            **figures,
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
