"""CPU seconds that Lightning and biloom's hooks add to a step of training.

    OMP_NUM_THREADS=1 python benchmarks/trainer_cost.py [--turns 40] [--steps 10] [--profile FILE]

The network has the sizes of the quick start: two LSTM layers per direction (256 hidden, 96 projected),
embedding, adaptive softmax over 8,000 words with a Zipf distribution, 32 rows x 20 tokens. One
module is trained in a Trainer that logs every 10 steps, another one in a plain loop: loss, backward,
clipping, fused Adam. Both take turns of a few steps in one process; the figures are medians of CPU
seconds, and of their ratio over the turns. `--profile` writes a profile of the Trainer's steps for
`pstats`, which makes them slower. The last line has all figures as JSON.
"""

import argparse
import cProfile
import json
import statistics
import time

import numpy as np
from in_turns import Turns, fit_in_turns
from train import UNROLL, draw_ids, zipf_counts

from lightning_modules.allocator import keep_memory
from lightning_modules.config import ModelConfig
from lightning_modules.nn.heads.cutoffs import choose_cutoffs
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.optimizers import build_optimizer, clip_gradients
from lightning_modules.training.window_loader import Batch

VOCABULARY, ROWS, HIDDEN, PROJECTION = 8000, 32, 256, 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    parser.add_argument("--compile", default="auto", choices=["auto", "off"])
    parser.add_argument("--profile", help="file for a profile of the Trainer's steps")
    options = parser.parse_args()
    stack = {"kind": "lstm", "hidden": HIDDEN, "projection": PROJECTION, "dropout": 0}
    inputs = {"kind": "embedding", "dropout": 0}
    model = ModelConfig.model_validate({"input": inputs, "recurrent": stack})
    train = TrainConfig(rows=ROWS, unroll=UNROLL, compile=options.compile)
    counts, width = zipf_counts(VOCABULARY), model.recurrent.direction_width
    cutoffs = choose_cutoffs(counts, width, 4.0, 2 * ROWS * UNROLL)
    make = WindowMaker(np.arange(VOCABULARY), cutoffs)
    shape = (8, 2, UNROLL, ROWS)
    pairs = zip(draw_ids(VOCABULARY, shape, 1), draw_ids(VOCABULARY, shape, 2), strict=True)
    windows = [make(ids, targets) for ids, targets in pairs]
    module, plain = (LitBiLM(model, train, VOCABULARY, cutoffs) for _ in range(2))
    print(module.compile_cell())
    plain.compile_cell()
    network, weights = plain.network, list(plain.network.parameters())
    optimizer = build_optimizer(train.optimizer, weights, train.learning_rate)
    state = network.zero_state(ROWS)

    def step(number: int) -> None:
        nonlocal state
        optimizer.zero_grad(set_to_none=True)
        losses = network.loss(windows[number % 8], state)
        state = losses.state.detach()
        losses.means.mean().backward()  # type: ignore[no-untyped-call]
        clip_gradients(weights, train.clip_norm)
        optimizer.step()

    ours: list[float] = []
    theirs: list[float] = []
    profile = cProfile.Profile(time.process_time)

    def turns() -> Turns:
        for number in range(3):
            step(number)
        yield 3
        for _ in range(options.turns):
            if options.profile:
                profile.enable()
            ours.append(statistics.mean((yield options.steps)))
            profile.disable()
            began = time.process_time()
            for number in range(options.steps):
                step(number)
            theirs.append((time.process_time() - began) / options.steps)

    with keep_memory():
        fit_in_turns(
            module,
            lambda number: Batch(number, (windows[number % 8],)),
            turns(),
            clock=time.process_time,
            accelerator="cpu",
            log_every_n_steps=10,
        )
    if options.profile:
        profile.dump_stats(options.profile)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    figures = {
        "trainer_ms": statistics.median(ours) * 1e3,
        "loop_ms": statistics.median(theirs) * 1e3,
        "trainer_over_loop": statistics.median(ratios),
    }
    print(json.dumps({key: round(value, 4) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
