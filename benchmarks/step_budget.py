"""A training step at ELMo's size on a GPU, counted without one: launches, memory traffic, copies, waits.

    python benchmarks/step_budget.py [--rows 128,256,384] [--operations]       (about a minute on one core)

The model is that of `train_gpu.py`: two LSTM layers per direction (4096 hidden, 512 projected), ELMo's
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
`--operations` also prints each kind of operation of each part. The last line has all figures as JSON; those
without a number of rows are for the first one.
"""

import argparse
import json
from typing import Any

from fake_gpu import fake_gpu, on_fake_gpu
from in_turns import Turns, fit_in_turns
from step_counter import PARTS, Count, StepCounter
from torch import device as cpu
from train import spelling, zipf_counts
from train_gpu import UNROLL, VOCABULARY, model_of, windows_of

from lightning_modules.config import ModelConfig
from lightning_modules.nn.window import Types, Window
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.weights.clusters import cutoffs_of
from lightning_modules.training.window_loader import Batch
from preprocess.tokenizers.spellings import Spellings


def count_step(
    model: ModelConfig,
    train: TrainConfig,
    vocabulary: int,
    cutoffs: tuple[int, ...],
    window: Window,
) -> Count:
    """Return the count of a training step on a window.

    It is the second step on this window. In the first one, the optimiser makes its state.

    Args:
        model: the network.
        train: settings of the training.
        vocabulary: number of ids. An id is its rank.
        cutoffs: first rank of each tail of an adaptive softmax.
        window: inputs and targets, on the CPU.
    """
    counter = StepCounter()

    def turns() -> Turns:
        yield 1
        counter.is_on = True
        yield 1
        counter.is_on = False

    with fake_gpu(counter.compiled, counter.captured) as device, counter:
        with device:
            module = LitBiLM(model, train, vocabulary, cutoffs)
        fit_in_turns(
            module, lambda number: Batch(number, (window,)), turns(), strategy=on_fake_gpu()
        )
    return counter.count


def at_rows(rows: int, with_operations: bool) -> dict[str, Any]:
    """Print the count at ELMo's size, and return its figures by name."""
    model = ModelConfig.model_validate(model_of(small=False))
    train = TrainConfig(rows=rows, unroll=UNROLL, warmup_steps=0, compile="on")
    cutoffs = cutoffs_of(model, train, zipf_counts(VOCABULARY))
    words = Spellings(spelling, VOCABULARY, 50)
    window, *_ = windows_of(rows, VOCABULARY, cutoffs, words, cpu("cpu"))
    assert isinstance(window.inputs, Types)
    assert window.routes
    types = sum(len(bucket) for bucket in window.inputs.characters)
    routed = ", ".join(f"{len(each):,}" for each in window.routes.rows)
    print(f"{rows} rows: {rows * UNROLL:,} tokens, {types:,} types; cutoffs {cutoffs}, "
          f"{routed} positions in the tails")  # fmt: skip
    count = count_step(model, train, VOCABULARY, cutoffs, window)
    show(count, with_operations)
    total = count.of()
    return {
        f"types_{rows}": types,
        f"ops_{rows}": total.operations,
        f"gb_{rows}": round(total.bytes / 1e9, 3),
        f"tflop_{rows}": round(total.flops / 1e12, 3),
        f"ms_{rows}": round(total.seconds * 1e3, 2),
        f"tokens_per_s_{rows}": round(rows * UNROLL / total.seconds),
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
          f"CUDA graphs: {count.graphs}\n")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="128,256,384")
    parser.add_argument("--operations", action="store_true", help="print each kind of operation")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for rows in map(int, options.rows.split(",")):
        # Figures without a number of rows are those of the first one.
        figures |= {**at_rows(rows, options.operations), **figures}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
