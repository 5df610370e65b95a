"""Training and embedding speed on a GPU, beside the prediction for each part of a step.

    python benchmarks/train_gpu.py [--rows 128,256,512] [--steps 40] [--device cuda]       (8 minutes)

The model is that of `elmo_size.py`. A training is that of `biloom train`: `LitBiLM` in a Lightning Trainer,
windows from token shards by the product's loader with a data worker, copies to the device, the gradient's
norm, clipping, fused Adam, bf16 if the device supports it. A token is one position of a row, trained in both
directions. Speed is that of all steps together, after 8 steps that are not counted. MFU is
`lightning_modules.sizes.flops_per_token` times tokens/s, divided by the FLOP/s of a large matrix product of
the same type in this run. The first number of rows is also trained with DDP in one process.

Three more steps are profiled. In them, layers run without CUDA graphs, so that cells can be told from the
rest; the copies to the memory of the graphs are not in the table. The table has the time of each part that `step_budget.py` predicts from this
GPU's measured bandwidth and matrix products, and the time that its kernels took in the profile. Predicted
times are lower bounds; the difference between the time of a step and the sum of its kernels is the time in
which the GPU waits.

Embedding is `BiLM.embed_selection` with batches of 32,768 tokens and all layers: in float32, and in bf16 with
the compiled cell; words are known already, except where said otherwise. A small network of the same kind is
first compared with float64 on the CPU: the figures are the largest relative errors of losses and gradients.

`--cudnn` also trains with nn.LSTM (cuDNN) in place of biloom's layers, without clipping of states and residual
connections, which it does not support. `--trace FILE` writes the profile for chrome://tracing. `--device cpu
--small` runs the same code without a GPU; its predictions are those of a GPU. The last line has all figures as
JSON. A part that fails is reported there under "failed", and the rest is measured.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from elmo_size import (
    UNROLL,
    RandomText,
    clusters,
    make_corpus,
    model_of,
    random_texts,
    train_of,
    types_read,
    vocabulary_of,
    windows_of,
    word_tokenizer,
)
from measured_steps import PROFILED, WARM, Steps, synchronise
from step_counter import PARTS
from torch import Tensor, nn
from train import zipf_counts

from lightning_modules.matmul_peak import matmul_peak
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.recurrent.stack import Run
from lightning_modules.nn.window import Window, on_device
from lightning_modules.sizes import flops_per_token
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.trainer_settings import PRECISIONS
from lightning_modules.vectors.batches import BATCH_TOKENS, GPU_FACTOR
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Selection
from pipeline.training.device import DTYPES, resolve_precision
from pipeline.training.strategy import ddp
from pipeline.training.trainer import SLOWER
from preprocess.text.config import CleaningConfig

COPIED = 1 << 28
"""Bytes of a copy that measures the bandwidth."""
Figures = dict[str, Any]


class Torchs(nn.Module):
    """nn.LSTM with the interface of the recurrent stack."""

    def __init__(
        self, hidden: int, width: int, zero_state: Callable[[int, torch.device], Tensor]
    ) -> None:
        super().__init__()
        self.width, self.zero_state, self.layers = width, zero_state, ()
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


class Benchmark:
    """The measurements.

    Args:
        device: a CPU or CUDA device.
        small: whether to measure a small network.
        steps: steps that are timed.
        folder: folder of the corpus.
    """

    def __init__(self, device: torch.device, small: bool, steps: int, folder: Path) -> None:
        self._device, self._small, self._steps, self._folder = device, small, steps, folder
        self._vocabulary = vocabulary_of(small)
        self._precision = resolve_precision("auto", device)

    def peaks(self) -> Figures:
        """Measure what the device reaches in matrix products and in copies."""
        found = {
            "tflops_bf16": matmul_peak(self._device, torch.bfloat16) / 1e12,
            "tflops_float32": matmul_peak(self._device, torch.float32) / 1e12,
        }
        source = torch.zeros(COPIED, dtype=torch.uint8, device=self._device)
        copy = source.clone()
        seconds = []
        for _ in range(5):
            synchronise(self._device)
            began = time.perf_counter()
            copy.copy_(source)
            synchronise(self._device)
            seconds.append(time.perf_counter() - began)
        return found | {"tb_per_s": 2 * COPIED / min(seconds) / 1e12}

    def predicted(self, rows: int, peaks: Figures) -> dict[str, float]:
        """Return the seconds of each part of a step that `step_budget.py` predicts.

        It runs in a process of its own, because it replaces parts of torch.
        """
        command = [sys.executable, str(Path(__file__).with_name("step_budget.py"))]
        command += ["--rows", str(rows), "--tb-per-s", str(peaks["tb_per_s"])]
        command += ["--tflops", f"{peaks['tflops_bf16']},{peaks['tflops_float32']}"]
        command += ["--small"] if self._small else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
        parts = json.loads(done.stdout.splitlines()[-1])[f"parts_ms_{rows}"]
        return {part: parts[part] / 1e3 for part in PARTS}

    def train(
        self, rows: int, kind: str = "single", trace: str | None = None
    ) -> tuple[Figures, dict[str, float]]:
        """Train; return the figures, and the seconds of each part of a step.

        Args:
            rows: rows of a step.
            kind: "single", "ddp", or "cudnn" for nn.LSTM.
            trace: file for the profile.
        """
        config, cutoffs = model_of(self._small), clusters(rows, self._small)
        train = train_of(rows, steps=WARM + self._steps + PROFILED)
        module = LitBiLM(config, train, self._vocabulary, cutoffs)
        if kind == "cudnn":
            stack = module.network.recurrent
            width = config.recurrent.direction_width
            module.network.recurrent = Torchs(  # type: ignore[assignment]
                config.recurrent.hidden, width, stack.zero_state
            )
        data = RandomText(str(self._folder), train, epoch_windows=train.steps)
        steps = Steps(self._steps, self._device, data, trace)
        trainer = pl.Trainer(
            accelerator="gpu" if self._device.type == "cuda" else "cpu",
            devices=1,
            strategy=ddp(1, self._device) if kind == "ddp" else "auto",
            precision=PRECISIONS[self._precision],
            max_epochs=-1,
            max_steps=train.steps,
            limit_val_batches=0,
            log_every_n_steps=train.log_steps,
            logger=False,
            callbacks=[steps],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", SLOWER)
            trainer.fit(module, data)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        counts = zipf_counts(self._vocabulary)
        flops = flops_per_token(config, counts, cutoffs, types_read(steps.window))
        speed = rows * UNROLL / steps.seconds
        figures = {
            "tokens_per_s": speed,
            "mfu": speed * flops / matmul_peak(self._device, DTYPES[self._precision]),
            "step_ms": steps.seconds * 1e3,
            "data_wait_ms": steps.waited * 1e3,
            "kernels_ms": sum(steps.parts.values()) * 1e3,
            "warnings": [str(one.message) for one in caught],
        }
        return figures, steps.parts

    def embed(self) -> Figures:
        """Return the tokens per second of embedding."""
        torch.manual_seed(0)
        network = BiLMNetwork(model_of(self._small), self._vocabulary, head=False)
        cleaning = CleaningConfig(unicode="none")
        model = BiLM(network, word_tokenizer(self._vocabulary), cleaning, "bos_eos")
        model.to(self._device)
        texts = random_texts(self._vocabulary, 1000 if self._small else 60_000)
        batch = BATCH_TOKENS * (1 if self._device.type == "cpu" else GPU_FACTOR)

        def speed() -> float:
            began = time.perf_counter()
            model.embed_selection(texts, Selection(), batch)  # ends when the vectors are here
            return sum(map(len, texts)) / (time.perf_counter() - began)

        figures = {"embed_new_words_per_s": speed(), "embed_float32_per_s": speed()}
        model.network.recurrent.compile_cell("auto")
        model.matmul_dtype = torch.bfloat16
        speed()
        return figures | {"embed_bf16_per_s": speed()}

    def errors(self) -> Figures:
        """Return the largest relative errors of losses and gradients from float64 on the CPU."""
        vocabulary, rows, cutoffs = 3000, 4, (500, 1500)
        torch.manual_seed(0)
        exact = BiLMNetwork(model_of(True, dropout=0.0), vocabulary, cutoffs).double()
        near = BiLMNetwork(model_of(True, dropout=0.0), vocabulary, cutoffs)
        near.load_state_dict(exact.state_dict())
        near.to(self._device)
        [window, *_] = windows_of(rows, vocabulary, cutoffs, torch.device("cpu"))

        def of(network: BiLMNetwork, window: Window, bf16: bool) -> list[Tensor]:
            state = network.zero_state(rows).to(next(network.parameters()).dtype)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
                means = network.loss(window, state).means
            gradients = torch.autograd.grad(means.sum(), list(network.parameters()))
            return [part.detach().double().cpu() for part in (means, *gradients)]

        reference = of(exact, window, False)
        found = {}
        for name, bf16 in (("float32", False), ("bf16", True)):
            parts = of(near, on_device(window, self._device), bf16)
            pairs = zip(parts, reference, strict=True)
            found[f"error_{name}"] = max(float((a - b).norm() / b.norm()) for a, b in pairs)
        return found


def table(rows: int, predicted: dict[str, float], measured: dict[str, float]) -> None:
    """Print the predicted and the measured time of each part of a step."""
    print(
        f"\n{f'{rows} rows':<28}{'predicted ms':>14}{'measured ms':>14}{'measured / predicted':>24}"
    )
    for part in (*PARTS, "all"):
        pair = [
            sum(one.values()) if part == "all" else one.get(part, 0)
            for one in (predicted, measured)
        ]
        ratio = f"{pair[1] / pair[0]:.2f}" if pair[0] else ""
        print(f"{part:<28}{pair[0] * 1e3:>14.3f}{pair[1] * 1e3:>14.3f}{ratio:>24}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="128,256,512")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--small", action="store_true", help="a small network, to check that it runs"
    )
    parser.add_argument("--cudnn", action="store_true", help="also measure nn.LSTM")
    parser.add_argument("--trace", help="file for the profile of the first number of rows")
    options = parser.parse_args()
    numbers = [int(rows) for rows in options.rows.split(",")]
    figures: Figures = {"failed": {}}

    def attempt(name: str, measure: Callable[[], Any]) -> Any:
        """Return what a measurement returns; None if it fails; the others are measured anyway."""
        try:
            return measure()
        except Exception as error:
            traceback.print_exc()
            figures["failed"][name] = f"{type(error).__name__}: {error}"[:300]
            return None

    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "prepare")
        tokens = 2 * max(numbers) * UNROLL * (WARM + options.steps + PROFILED)
        make_corpus(corpus, vocabulary_of(options.small), tokens)
        device = torch.device(options.device)
        benchmark = Benchmark(device, options.small, options.steps, corpus)
        figures |= benchmark.peaks()
        figures |= attempt("errors", benchmark.errors) or {}
        for rows in numbers:
            trace = options.trace if rows == numbers[0] else None
            found = attempt(f"train {rows}", partial(benchmark.train, rows, trace=trace))
            predict = partial(benchmark.predicted, rows, figures)
            predicted = attempt(f"prediction {rows}", predict) or {}
            if found:
                figures |= {f"{name}_{rows}": value for name, value in found[0].items()}
                table(rows, predicted, found[1])
                for name, parts in (("predicted", predicted), ("measured", found[1])):
                    figures[f"{name}_parts_ms_{rows}"] = {k: v * 1e3 for k, v in parts.items()}
                print(
                    f"{rows} rows: {found[0]['tokens_per_s']:,.0f} tokens/s, MFU {found[0]['mfu']:.1%}"
                )
        for kind in ("ddp", "cudnn") if options.cudnn else ("ddp",):
            found = attempt(kind, partial(benchmark.train, numbers[0], kind))
            if found:
                figures[f"{kind}_tokens_per_s_{numbers[0]}"] = found[0]["tokens_per_s"]
        figures |= attempt("embed", benchmark.embed) or {}
    print(json.dumps(_rounded(figures)))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
