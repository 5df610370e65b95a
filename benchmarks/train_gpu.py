"""Training speed and MFU of a model of ELMo's size on a GPU, compared with cuDNN.

    python benchmarks/train_gpu.py [--rows 64,128,256,512,1024] [--steps 30] [--device cuda]

The model has two LSTM layers per direction (4096 hidden, 512 projected), a character CNN with 2,048
filters and an adaptive softmax over 793,471 words with a Zipf distribution. Its cutoffs are those of
`auto`. Training uses 20 unrolled tokens, Adam, and bf16 if the device supports it. A step is
forward, backward, clipping and optimiser on windows that are already on the device. A token is one
position of a row, trained in both directions. The baseline has the same input and output layers, but
nn.LSTM(proj_size=512) (cuDNN) per direction, without clipping of states and residual connections,
which it does not support. MFU is `lightning_modules.sizes.flops_per_token` times tokens/s, divided by
the FLOP/s of a large matrix product in this run.

A small network of the same kind is first compared with float64 on the CPU: the figures are the largest
relative errors of losses and gradients. `--profile FILE` writes a trace of three steps for
chrome://tracing. `--device cpu --small` runs the same code without a GPU. The last line has all figures
as JSON.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from in_turns import Turns, fit_in_turns
from torch import Tensor, nn
from train import draw_ids, spelling, zipf_counts

from lightning_modules.config import ModelConfig
from lightning_modules.matmul_peak import matmul_peak
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.cutoffs import choose_cutoffs
from lightning_modules.nn.inputs.word_types import types_of_window
from lightning_modules.nn.recurrent.stack import Run
from lightning_modules.nn.window import Types, Window, on_device
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.sizes import SpelledTypes, flops_per_token
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.trainer_settings import PRECISIONS
from lightning_modules.training.window_loader import Batch
from pipeline.training.device import DTYPES, resolve_precision
from preprocess.tokenizers.spellings import Spellings

UNROLL, VOCABULARY, WINDOWS = 20, 793_471, 4
FILTERS = [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]]


def model_of(small: bool, dropout: float = 0.1) -> dict[str, Any]:
    filters = [[1, 8], [3, 24]] if small else FILTERS
    hidden, projection = (64, 16) if small else (4096, 512)
    return {
        "input": {"kind": "char_cnn", "filters": filters, "dropout": dropout},
        "recurrent": {
            **{"kind": "lstm", "hidden": hidden, "projection": projection, "dropout": dropout}
        },
        "head": {"kind": "adaptive_softmax"},
    }


class Torchs(nn.Module):
    """nn.LSTM with the interface of the recurrent stack."""

    def __init__(
        self, hidden: int, width: int, zero_state: Callable[[int, torch.device], Tensor]
    ) -> None:
        super().__init__()
        self.width = width
        self.zero_state = zero_state
        self.stacks = nn.ModuleList(nn.LSTM(width, hidden, 2, proj_size=width) for _ in "fb")

    def compile_cell(self, mode: str, rows: int) -> str:
        return "nn.LSTM"

    def use_graphs(self, time: int, rows: int) -> None: ...

    def drop_graphs(self) -> None: ...

    def forward(self, x: Tensor, state: Tensor, resets: Tensor | None = None) -> Run:
        outputs, after = [], []
        for way, stack in enumerate(self.stacks):
            h, c = state[:, way].split([self.width, state.shape[-1] - self.width], 2)
            y, carried = stack(x[way], (h.contiguous().to(x.dtype), c.contiguous().to(x.dtype)))
            outputs.append(y)
            after.append(torch.cat(carried, 2).float())  # (layers, rows, width + hidden)
        top = torch.stack(outputs)  # (2, time, rows, width)
        return Run((top,), top, torch.stack(after, 1))


def windows_of(
    rows: int, vocabulary: int, cutoffs: tuple[int, ...], words: Spellings, device: torch.device
) -> list[Window]:
    make = WindowMaker(np.arange(vocabulary), cutoffs, partial(types_of_window, spellings=words))
    shape = (WINDOWS, 2, UNROLL, rows)
    pairs = zip(draw_ids(vocabulary, shape, 1), draw_ids(vocabulary, shape, 2), strict=True)
    return [on_device(make(ids, targets), device) for ids, targets in pairs]


def module_of(rows: int, vocabulary: int, cutoffs: tuple[int, ...], small: bool) -> LitBiLM:
    train = TrainConfig(rows=rows, unroll=UNROLL, warmup_steps=0)
    model = ModelConfig.model_validate(model_of(small))
    return LitBiLM(model, train, vocabulary, cutoffs, torch.arange(vocabulary))


def fit(module: LitBiLM, windows: list[Window], turns: Turns, device: torch.device) -> None:
    """Train in turns on windows that are on the device."""
    fit_in_turns(
        module,
        lambda number: Batch(number, (windows[number % WINDOWS],)),
        turns,
        partial(synchronise, device),
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=PRECISIONS[resolve_precision("auto", device)],
    )


def timed(module: LitBiLM, windows: list[Window], steps: int, device: torch.device) -> float:
    """Return the median of the seconds per step."""
    taken: list[float] = []

    def turns() -> Turns:
        yield WINDOWS + 1
        taken.extend((yield steps))

    fit(module, windows, turns(), device)
    return statistics.median(taken)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def at_rows(
    rows: int, vocabulary: int, steps: int, device: torch.device, small: bool
) -> dict[str, float]:
    config = ModelConfig.model_validate(model_of(small))
    counts, width = zipf_counts(vocabulary), config.recurrent.direction_width
    cutoffs = choose_cutoffs(counts, width, 4.0, 2 * rows * UNROLL)
    words = Spellings(spelling, vocabulary, 50)
    windows = windows_of(rows, vocabulary, cutoffs, words, device)
    module = module_of(rows, vocabulary, cutoffs, small)
    print(module.compile_cell())
    ours = timed(module, windows, steps, device)
    other = module_of(rows, vocabulary, cutoffs, small)
    recurrent = Torchs(config.recurrent.hidden, width, other.network.recurrent.zero_state)
    other.network.recurrent = recurrent  # type: ignore[assignment]
    theirs = timed(other, windows, steps, device)
    tokens = rows * UNROLL
    dtype = DTYPES[resolve_precision("auto", device)]
    flops = flops_per_token(config, counts, cutoffs, types_read(windows[0], tokens))
    found = {
        "tokens_per_s": tokens / ours,
        "mfu": tokens / ours * flops / matmul_peak(device, dtype),
        "cudnn_tokens_per_s": tokens / theirs,
        "over_cudnn": theirs / ours,
    }
    print(f"{rows} rows: {found['tokens_per_s']:,.0f} tokens/s, MFU {found['mfu']:.1%}, "
          f"{found['over_cudnn']:.2f} of nn.LSTM; cutoffs {cutoffs}")  # fmt: skip
    return found


def types_read(window: Window, tokens: int) -> SpelledTypes:
    assert isinstance(window.inputs, Types)
    buckets = window.inputs.characters
    types = sum(len(bucket) for bucket in buckets)
    letters = sum(bucket.numel() for bucket in buckets)
    return SpelledTypes(types / tokens, letters / types)


def errors(device: torch.device) -> dict[str, float]:
    """Return the largest relative errors of losses and gradients from float64 on the CPU."""
    vocabulary, rows = 3000, 4
    model = ModelConfig.model_validate(model_of(True, dropout=0.0))
    cutoffs = (500, 1500)
    words = Spellings(spelling, vocabulary, 50)
    torch.manual_seed(0)
    exact = BiLMNetwork(model, vocabulary, cutoffs).double()
    near = BiLMNetwork(model, vocabulary, cutoffs)
    near.load_state_dict(exact.state_dict())
    near.to(device)
    [window, *_] = windows_of(rows, vocabulary, cutoffs, words, torch.device("cpu"))

    def of(network: BiLMNetwork, window: Window, bf16: bool) -> list[Tensor]:
        state = network.zero_state(rows).to(next(network.parameters()).dtype)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            means = network.loss(window, state).means
        gradients = torch.autograd.grad(means.sum(), list(network.parameters()))
        return [part.detach().double().cpu() for part in (means, *gradients)]

    reference = of(exact, window, False)
    found = {}
    for name, bf16 in (("float32", False), ("bf16", True)):
        parts = of(near, on_device(window, device), bf16)
        pairs = zip(parts, reference, strict=True)
        found[f"error_{name}"] = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="64,128,256,512,1024")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--small", action="store_true", help="use a small network, to check that it runs"
    )
    parser.add_argument("--profile", help="file for a trace of three steps")
    options = parser.parse_args()
    device = torch.device(options.device)
    vocabulary = 5000 if options.small else VOCABULARY
    figures: dict[str, Any] = errors(device)
    figures["matmul_tflops"] = matmul_peak(device, torch.float32) / 1e12
    measure: Callable[[int], dict[str, float]] = partial(
        at_rows, vocabulary=vocabulary, steps=options.steps, device=device, small=options.small
    )
    for rows in map(int, options.rows.split(",")):
        figures |= {f"{key}_{rows}": value for key, value in measure(rows).items()}
    if options.profile:
        trace(options.profile, device, options.small, vocabulary)
    print(json.dumps({key: float(f"{value:.4g}") for key, value in figures.items()}))


def trace(path: str, device: torch.device, small: bool, vocabulary: int) -> None:
    words = Spellings(spelling, vocabulary, 50)
    cutoffs = choose_cutoffs(zipf_counts(vocabulary), 512, 4.0, 128 * 2 * UNROLL)
    module = module_of(128, vocabulary, cutoffs, small)
    windows = windows_of(128, vocabulary, cutoffs, words, device)
    profile = torch.profiler.profile()

    def turns() -> Turns:
        yield WINDOWS + 2
        with profile:
            yield 3

    fit(module, windows, turns(), device)
    profile.export_chrome_trace(path)


if __name__ == "__main__":
    main()
