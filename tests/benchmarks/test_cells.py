"""The comparison of kinds of recurrent layers, without its trainings."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from cells import Comparison, Cost, Figures, Kind, compared, perplexity

KIND = Kind("sru:2", [], 200, 1000, (1.0, 2.0, 4.0))


class Trained(Comparison):
    """Trainings with given perplexities by learning rate; others fail."""

    def __init__(self, perplexities: dict[float, float]) -> None:
        self.perplexities, self.runs = perplexities, []  # type: ignore[var-annotated]

    def run(self, kind: Kind, steps: int, rate: float, seed: int) -> Figures:
        self.runs.append((rate, seed))
        figures: Figures = {"rate": rate, "seed": seed, "steps": steps}
        if rate not in self.perplexities:
            return figures | {"failure": ["biloom: the loss is not finite"]}
        found = self.perplexities[rate] + seed
        scores = {"layer 1": 0.5, "layer 2": 0.6}
        return figures | {
            **{"forward": found, "backward": found, "cpu_seconds": None},
            **{"senses": scores, "same_sense": scores},
        }


class Timed(Comparison):
    """Short trainings with a start of 16 seconds and steps of 0.125 seconds."""

    def __init__(self, out: Path) -> None:
        self._out, self.steps = out, []  # type: ignore[var-annotated]

    def _short(self, kind: Kind, steps: int) -> float:
        self.steps.append((kind.label, steps))
        return 16 + 0.125 * steps


def options(**given: Any) -> Namespace:
    return Namespace(**{"seeds": 3, **given})


def test_the_other_seeds_have_the_best_rate(capsys: pytest.CaptureFixture[str]) -> None:
    trained = Trained({1.0: 120.0, 2.0: 100.0})

    found = compared(trained, KIND, 7, options())

    assert trained.runs == [(1.0, 1), (2.0, 1), (4.0, 1), (2.0, 2), (2.0, 3)]
    assert (found["rate"], found["seeds"], found["forward"]) == (2.0, 3, 102.0)
    assert found["senses"] == {"layer 1": 0.5, "layer 2": 0.6}
    printed = capsys.readouterr().out
    assert (
        "sru:2 rate 2 seed 3: forward 103.0, backward 103.0, senses 60.0 % (layer 2)\n" in printed
    )
    assert "sru:2 rate 4 seed 1: failed: biloom: the loss is not finite\n" in printed


def test_a_kind_whose_trainings_all_fail_has_no_perplexity() -> None:
    trained = Trained({})

    found = compared(trained, KIND._replace(rates=(1.0,)), 7, options())

    assert trained.runs == [(1.0, 1)]
    assert found["seeds"] == 0
    assert "forward" not in found
    assert perplexity(found["runs"][0]) == float("inf")


def test_the_cost_of_all_kinds_is_measured_once_in_turns(tmp_path: Path) -> None:
    timed, other = Timed(tmp_path), KIND._replace(label="gru:2")

    found = timed.cost([KIND, other])

    assert found == {"sru:2": Cost(16, 0.125), "gru:2": Cost(16, 0.125)}
    assert timed.steps == [(label, n) for label in ("sru:2", "gru:2") for n in (50, 350)] * 2
    assert timed.cost([other]) == found
    assert len(timed.steps) == 8
