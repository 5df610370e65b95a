"""How often a training reads its corpus and how long it takes, and warnings about both.

Imports no torch, so that `--dry-run` answers at once.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lightning_modules.config import CharCNNInputConfig, ModelConfig
from lightning_modules.nn.heads.cutoffs import two_digits
from lightning_modules.recurrent_config import NoRecurrenceConfig
from lightning_modules.sizes import flops_per_token
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.validation.sample import (
    TYPICAL_TYPES,
    evaluation_cost,
    training_sample,
)
from lightning_modules.training.weights.clusters import cutoffs_of
from pipeline.config.schema import Config
from pipeline.console import Bar, count
from pipeline.progress import Figures

PASSES, PASSES_PER_DROPOUT = 4, 50
"""Passes over the corpus above which a warning is shown: without dropout, and more per unit of dropout.

A model of 0.12 M tokens was best after 3.6 passes without dropout, and still improved after 10 passes
with dropout 0.2 (docs/recipes.md)."""
MUCH_DROPOUT = 0.2
"""Dropout from which no more of it is advised."""
MUCH_HELD_OUT = 0.2
"""Share of a corpus's tokens in its valid and test splits above which a warning is shown."""
FEW_HELD_OUT = 1000
"""Tokens of the valid split below which a warning is shown: the perplexity of so few has a standard error
of about 8 %, since the loss of a token has a standard deviation of about 2.5 nats."""
ENOUGH_HELD_OUT, MOST_HELD_OUT = 2000, 0.1
"""Tokens of the valid split that the warning aims at, and the largest share of a corpus that it advises."""
MUCH_EVALUATION = 0.25
"""Time of the held-out evaluations, as a share of the training steps', above which a warning is shown."""
LONG_SECONDS, ADVISED_SECONDS = 2 * 3600.0, 3600.0
"""Training time above which a warning is shown, and that of the number of steps that it names."""
TIMED_SECONDS = 30.0
"""Training time over which the speed is measured before a warning."""
EFFICIENCY = 0.5
"""Approximate share of a CPU's matmul speed that training reaches (MFU)."""
MEASURED_SECONDS, MEASURED_SIZE = 0.15, 768
"""How long the matmul of a CPU is measured, and the rows and columns of its matrices."""


class Warn(Protocol):
    """Anything that can show a warning, such as the console."""

    def warn(self, text: str) -> None:
        """Show a warning."""


def passes_warning(passes: float, steps: int, dropout: float) -> str | None:
    """Return a warning if ``steps`` read less than one pass, or more than the dropout allows.

    Args:
        passes: passes over the corpus that the steps make.
        steps: number of steps.
        dropout: from `strongest_dropout`.
    """
    if passes < 1:
        whole = "; train.passes=1 reads all of it" if passes else ""
        return f"train.steps={steps} reads {min(passes, 0.99):.2g} of a pass over the corpus{whole}"
    bound = round(PASSES + PASSES_PER_DROPOUT * dropout)
    if passes <= bound:
        return None
    regularised = ""
    if dropout < MUCH_DROPOUT:
        regularised = ", or model.recurrent.dropout and model.input.dropout to 0.2"
    return (
        f"{steps:,} steps are {passes:,.0f} passes over the corpus; with dropout {dropout:g}, a model "
        f"memorises its text after about {bound}, and held-out perplexity rises; set "
        f"train.passes={bound}{regularised}"
    )


def strongest_dropout(model: ModelConfig) -> float:
    """Return the highest of the dropout probabilities of the input, the layers and the top layer."""
    recurrent = model.recurrent
    assert not isinstance(recurrent, NoRecurrenceConfig), "a static model is not trained"
    return max(model.input.dropout, recurrent.dropout, recurrent.output_dropout or 0.0)


def held_out_warning(tokens: Mapping[str, float]) -> str | None:
    """Return a warning if a corpus has no, little or much held-out text, else None.

    Args:
        tokens: number of tokens of each split.
    """
    if not tokens["valid"]:
        return (
            "no held-out text: no perplexity will be reported; raise prepare.valid_fraction, or add "
            "a source of split: valid"
        )
    held_out = tokens["valid"] + tokens["test"]
    total = tokens["train"] + held_out
    share = held_out / total
    if share <= MUCH_HELD_OUT:
        return _little_held_out(tokens["valid"], total)
    return (
        f"{share:.0%} of the corpus's tokens are held out (valid and test), so training does not read "
        "them; lower prepare.valid_fraction and prepare.test_fraction, or use less text in the "
        "sources of these splits"
    )


def _little_held_out(valid: float, total: float) -> str | None:
    share = min(math.ceil(100 * ENOUGH_HELD_OUT / total) / 100, MOST_HELD_OUT)
    if valid >= FEW_HELD_OUT or share * total <= valid:
        return None
    return (
        f"the valid split has only {count(valid)} tokens, so held-out perplexity and the best step are "
        f"uncertain; prepare.valid_fraction={share:g} holds out about {count(share * total)}"
    )


def evaluation_warning(
    model: ModelConfig, train: TrainConfig, vocabulary: int, valid_tokens: float
) -> str | None:
    """Return a warning if the held-out evaluations take long compared with training, else None.

    Args:
        model: the network.
        train: settings of training.
        vocabulary: number of token ids.
        valid_tokens: number of tokens of the valid split.
    """
    number = math.ceil(train.steps / train.evaluate_steps)
    sample = training_sample(model, train, vocabulary, math.ceil(valid_tokens)).tokens
    read = number * (sample or valid_tokens) + (valid_tokens if sample else 0)
    time = train.steps * train.tokens_a_step
    share = evaluation_cost(model, vocabulary) * read / time
    if share <= MUCH_EVALUATION:
        return None
    text = f"{count(sample)} of {count(valid_tokens)}" if sample else count(valid_tokens)
    times = f"{number:,} evaluation{'s' if number > 1 else ''} of {text} held-out tokens"
    take = "and one of all of them take" if sample else "take" if number > 1 else "takes"
    return (
        f"{times} {take} about {share:.0%} of the time of the "
        "training steps; raise train.evaluate_steps, or prepare a smaller valid split"
    )


def training_warnings(
    config: Config, passes: float, tokens: Mapping[str, float], vocabulary: int
) -> list[str]:
    """Return all warnings about the corpus of a training.

    Args:
        config: the config, resolved.
        passes: number of passes over the train split.
        tokens: number of tokens of each split.
        vocabulary: number of token ids.
    """
    found = (
        passes_warning(passes, config.train.steps, strongest_dropout(config.model)),
        held_out_warning(tokens),
        evaluation_warning(config.model, config.train, vocabulary, tokens["valid"]),
    )
    return [warning for warning in found if warning]


def time_warning(seconds: float, steps: int, where: str) -> str | None:
    """Return a warning if a training takes more than ``LONG_SECONDS``, else None.

    The warning names a number of steps that takes ``ADVISED_SECONDS``.

    Args:
        seconds: time that all steps take.
        steps: number of steps.
        where: name of the device, for the warning.
    """
    if seconds <= LONG_SECONDS:
        return None
    fewer = max(1, two_digits(steps * ADVISED_SECONDS / seconds))
    return (
        f"{steps:,} steps take {duration(seconds)} on {where}; train.steps={fewer} takes about "
        f"{duration(ADVISED_SECONDS)}, and steps can be added later"
    )


class TimedBar:
    """A progress bar that warns once, early, if the rest of the training takes long.

    Args:
        bar: the bar that is shown.
        steps: the training's last step.
        where: name of the device, for the warning.
        console: where the warning is shown.
    """

    def __init__(self, bar: Bar, steps: int, where: str, console: Warn) -> None:
        self._bar, self._steps, self._where, self._console = bar, steps, where, console
        self._updates = 0
        self._began: tuple[float, float] | None = None

    def update(self, done: float, note: str = "", figures: Figures | None = None) -> None:
        """Update the bar, and show the warning when the speed is known."""
        self._bar.update(done, note, figures)
        self._updates += 1
        if self._updates == 2:
            # Measured from the second update, because the first steps compile and are slower.
            self._began = time.monotonic(), done
        elif self._began and time.monotonic() - self._began[0] >= TIMED_SECONDS:
            began, first = self._began
            self._began = None
            left = self._steps - int(done)
            seconds = left * (time.monotonic() - began) / max(done - first, 1)
            if seconds > LONG_SECONDS:
                self._console.warn(_slow(seconds, left, self._steps, self._where))


def _slow(seconds: float, left: int, steps: int, where: str) -> str:
    warning = f"at this speed, {left:,} steps take {duration(seconds)} on {where}"
    fewer = two_digits(left * ADVISED_SECONDS / seconds)
    if left < 0.9 * steps or not fewer:
        return warning
    return (
        f"{warning}; for about {duration(ADVISED_SECONDS)}, stop it (Ctrl-C) and add "
        f"train.steps={fewer} --overwrite"
    )


def duration(seconds: float) -> str:
    """Format a time in its largest suitable unit: "40 seconds", "5 minutes", "2.5 days"."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * size or (size == 3600 and seconds == size):
            number = seconds / size
            with_tenth = number < 10 and unit != "minute"
            shown = f"{number:.1f}".removesuffix(".0") if with_tenth else f"{number:.0f}"
            return f"{shown} {unit}{'' if shown == '1' else 's'}"
    whole = max(1, round(seconds))
    return f"{whole} second{'s' if whole > 1 else ''}"


def trains_on_cpu(config: Config) -> bool:
    """Return True if training will use the CPU, as far as that is known without importing torch."""
    device = config.train.device
    return device == "cpu" or (device == "auto" and not Path("/dev/nvidia0").exists())


def cpu_tokens_per_second(config: Config, counts: npt.NDArray[np.uint64]) -> float:
    """Estimate the speed of training on this machine's CPU, in tokens per second.

    The estimate is the speed of a float32 matmul, measured now, times ``EFFICIENCY``, divided by the
    FLOPs per token.

    Args:
        config: the config.
        counts: number of occurrences of each id, uint64 (vocabulary,).
    """
    return EFFICIENCY * _matmul_speed() / _flops(config, counts)


def zipf_counts(vocabulary: int) -> npt.NDArray[np.uint64]:
    """Return plausible counts of the ids of a tokenizer that is not trained yet, uint64 (vocabulary,).

    They fall with 1 / rank, as the counts of words and subwords do (Zipf's law).
    """
    ranks = np.arange(1, vocabulary + 1)
    return (100.0 * vocabulary / ranks).astype(np.uint64)


def _flops(config: Config, counts: npt.NDArray[np.uint64]) -> float:
    model = config.model
    predicted = counts[: model.output_vocabulary] if model.output_vocabulary else counts
    types = TYPICAL_TYPES if isinstance(model.input, CharCNNInputConfig) else None
    return flops_per_token(model, predicted, cutoffs_of(model, config.train, predicted), types)


def _matmul_speed() -> float:
    """Return the best FLOP/s of NumPy's float32 matmul within `MEASURED_SECONDS`."""
    a = np.random.default_rng(0).random((MEASURED_SIZE, MEASURED_SIZE), np.float32)
    best, end = float("inf"), time.perf_counter() + MEASURED_SECONDS
    while best == float("inf") or time.perf_counter() < end:
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2.0 * MEASURED_SIZE**3 / best
