"""The budget of a small step, exactly: a change of the step shows here."""

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from step_budget import count_step, main
from step_counter import PARTS, Count

from lightning_modules.config import ModelConfig
from lightning_modules.nn.inputs.word_types import types_of_window
from lightning_modules.nn.window_maker import WindowMaker, document_resets
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.step_figures import StepFigures
from preprocess.tokenizers.spellings import Spellings

pytestmark = pytest.mark.skipif(
    torch.__version__.split("+")[0] != "2.13.0",
    reason="other versions of torch have other operations",
)

VOCABULARY, CUTOFFS, TIME, ROWS, HIDDEN, WIDTH = 60, (10, 30), 3, 4, 16, 8
PLAIN = {"residual": False, "cell_clip": None, "projection_clip": None, "dropout": 0}


def step(
    resets: bool = False,
    clip_norm: float | None = None,
    optimizer: str = "adam",
    cuda_graphs: str = "auto",
    **recurrent: Any,
) -> Count:
    """Return the count of a step of a small network, plain unless ``recurrent`` says otherwise."""
    stack = (
        {"kind": "lstm", "hidden": HIDDEN, "projection": WIDTH} if "kind" not in recurrent else {}
    )
    stack |= recurrent
    characters = {"kind": "char_cnn", "dim": 4, "filters": [[1, 4], [2, 8]], "highway": 1}
    dropout = {"dropout": recurrent.get("dropout", 0.1)}
    model = ModelConfig.model_validate({"input": characters | dropout, "recurrent": stack})
    settings = {
        "rows": ROWS,
        "unroll": TIME,
        "warmup_steps": 0,
        "compile": "on" if stack["kind"] == "lstm" else "auto",
        "learning_rate": 1,
    }
    settings |= {
        "optimizer": {"kind": optimizer},
        "clip_norm": clip_norm,
        "cuda_graphs": cuda_graphs,
    }
    train = TrainConfig.model_validate(settings)
    words = Spellings(lambda number: "w" * (number % 7), VOCABULARY, 9)
    make = WindowMaker(np.arange(VOCABULARY), CUTOFFS, partial(types_of_window, spellings=words))
    ids, targets = np.random.default_rng(1).integers(0, VOCABULARY, (2, 2, TIME, ROWS))
    window = make(ids, targets, document_resets(ids, (1, 2)) if resets else None)
    return count_step(model, train, VOCABULARY, CUTOFFS, window)


def sums(count: Count) -> dict[str, tuple[int, int]]:
    """Return operations and bytes by part."""
    tallies = {part: count.of(part) for part in PARTS}
    return {part: (tally.operations, tally.bytes) for part, tally in tallies.items()}


@pytest.fixture(scope="module")
def plain() -> Count:
    return step(**PLAIN)


def test_budget(plain: Count) -> None:
    assert sums(plain) == {
        "CNN forward": (15, 26_332),
        "CNN backward": (24, 53_388),
        "LSTM forward": (35, 81_152),
        "LSTM backward": (34, 84_224),
        "cells": (12, 55_296),
        "head forward": (27, 32_048),
        "head backward": (24, 44_288),
        "optimiser": (7, 212_165),
        "glue": (27, 8_854),
    }
    assert plain.of().flops == 444_032
    assert (plain.copies, plain.reads) == (8, 0)


def test_budget_with_clips_residual_connections_dropout_and_resets() -> None:
    count = step(resets=True, clip_norm=1.0)
    assert sums(count) == {
        "CNN forward": (16, 28_060),
        "CNN backward": (25, 55_116),
        "LSTM forward": (52, 89_072),
        "LSTM backward": (49, 95_008),
        "cells": (12, 55_488),
        "head forward": (27, 32_048),
        "head backward": (24, 44_288),
        "optimiser": (12, 265_049),
        "glue": (27, 8_878),
    }
    assert (count.copies, count.reads) == (9, 0)


def test_parts_agree_with_formulas(plain: Count) -> None:
    number = 2 * ROWS * HIDDEN  # of a cell's values, in both directions
    bias = 2 * 4 * HIDDEN * 4
    # Bytes: gates (bf16) read and written, h W (bf16), the bias, c, c' and the output (bf16).
    forward = 4 * number * (2 + 2) + 4 * number * 2 + bias + 2 * number * 4 + number * 2
    # Gates and the gradient of c read and written, c, c', and the gradient of the output (bf16).
    backward = 4 * number * (2 + 2) + number * (4 + 4) + 2 * number * 4 + number * 2
    assert plain.of("cells").bytes == 2 * TIME * (forward + backward)

    [adam, norm] = (plain.tallies["optimiser", name] for name in ("_fused_adam_", "_foreach_norm"))
    weights, scalars = norm.loads, norm.stores
    flag = 4  # whether to skip the step
    assert adam.loads - scalars - flag == 4 * weights  # the weight, its gradient and both means
    assert adam.stores == 3 * weights


@pytest.mark.parametrize("resets", [False, True])
def test_the_passes_of_the_layers_are_captured(resets: bool) -> None:
    captured = step(resets, dropout=0.1)
    launched = step(resets, dropout=0.1, cuda_graphs="off")
    assert captured.graphs == 4  # two layers
    assert launched.graphs == launched.of().captured == 0
    # Inputs and gradients are copied, or zeroed, to where the graphs read them.
    for part, copies in (("LSTM forward", 2 + resets), ("LSTM backward", 2)):
        [ours, theirs] = (count.of(part) for count in (captured, launched))
        assert ours.operations == theirs.operations + 2 * copies - 2 * (part == "LSTM backward")
    assert captured.of("cells").captured == captured.of("cells").operations
    outside = captured.of().operations - captured.of().captured
    assert launched.of().operations - outside > 5 * 2 * TIME


@pytest.mark.parametrize(
    "stack",
    [{"kind": "sru", "hidden": WIDTH}, {"kind": "hgrn2", "hidden": HIDDEN, "projection": WIDTH}],
)
def test_scans_are_captured_and_read_nothing_on_the_host(stack: dict[str, Any]) -> None:
    count = step(resets=True, **stack)
    cells = count.of("cells")
    assert (count.graphs, count.reads) == (4, 0)
    assert cells.captured == cells.operations > 0


def test_adagrad_skips_a_step_without_a_read_by_the_host() -> None:
    count = step(optimizer="adagrad", **PLAIN)
    assert count.tallies["optimiser", "_fused_adagrad_"].operations == 1
    assert count.reads == 0


def test_a_read_by_the_host_shows(monkeypatch: pytest.MonkeyPatch, plain: Count) -> None:
    monkeypatch.setattr(
        StepFigures, "add", lambda figures, losses: figures._parts.append(losses * float(losses[0]))
    )
    count = step(**PLAIN)
    assert count.reads == plain.reads + 1
    assert count.of("glue").operations == plain.of("glue").operations + 1


@pytest.mark.slow
def test_the_last_line_has_the_figures_at_elmos_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["step_budget.py", "--rows", "128"])
    main()
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("128 rows: 2,560 tokens, 2,914 types; cutoffs (5100, 44000, 280000), ")
    figures = json.loads(last)
    assert (figures["ops_128"], figures["ops_outside_graphs"], figures["graphs"]) == (542, 190, 4)
    assert figures["gb_128"] == 17.937
    assert (figures["copies"], figures["host_reads"]) == (13, 0)
