"""Optimisers, learning rate schedules and averaging."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules.training.config import (
    AdagradConfig,
    AdamConfig,
    AdamWConfig,
    OptimizerConfig,
    SGDConfig,
    TrainConfig,
)
from lightning_modules.training.optimizers import (
    HeldOutSchedule,
    WeightAverage,
    averages,
    build_optimizer,
    clip_gradients,
    drops,
    end_skip,
    learning_rate,
    skip_if,
    use_own_implementation,
)


def train(**settings: object) -> TrainConfig:
    return TrainConfig.model_validate({"learning_rate": 2.0, "warmup_steps": 0} | settings)


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        (
            AdamConfig(betas=(0.8, 0.9), epsilon=1e-3, weight_decay=0.1),
            lambda w: torch.optim.Adam(w, 0.1, (0.8, 0.9), 1e-3, 0.1, foreach=False),
        ),
        (
            AdamWConfig(weight_decay=0.2),
            lambda w: torch.optim.AdamW(w, 0.1, weight_decay=0.2, foreach=False),
        ),
        (
            AdagradConfig(initial_accumulator=0.5, weight_decay=0.1),
            lambda w: torch.optim.Adagrad(
                w, 0.1, weight_decay=0.1, initial_accumulator_value=0.5, foreach=False
            ),
        ),
        (
            SGDConfig(momentum=0.5, weight_decay=0.1),
            lambda w: torch.optim.SGD(w, 0.1, 0.5, weight_decay=0.1, foreach=False),
        ),
    ],
)
def test_each_optimiser_is_fused_and_agrees_with_the_plain_one_of_torch(
    config: OptimizerConfig, reference: object
) -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.arange(6.0)) for _ in range(2))
    optimizer = build_optimizer(config, [ours], 0.1)
    plain = reference([theirs])  # type: ignore[operator]
    for _ in range(3):
        gradient = torch.randn(6)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        plain.step()

    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    assert optimizer.param_groups[0]["fused"]


@pytest.mark.parametrize(("limit", "scale"), [(None, 1.0), (10.0, 1.0), (2.5, 0.5), (0.5, 0.1)])
def test_gradients_are_scaled_to_a_norm_and_the_norm_before_is_returned(
    limit: float | None, scale: float
) -> None:
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])

    assert clip_gradients(weights, limit) == 5.0
    torch.testing.assert_close(weights[0].grad, torch.tensor([3.0 * scale, 0.0]))
    torch.testing.assert_close(weights[1].grad, torch.tensor([4.0 * scale]))


def test_the_norm_of_gradients_that_are_not_finite_is_not_finite() -> None:
    weights = [nn.Parameter(torch.zeros(2))]
    weights[0].grad = torch.tensor([3.0, math.inf])

    assert clip_gradients(weights, 1.0) == math.inf


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "config", [AdamConfig(), AdamWConfig(), AdagradConfig(), SGDConfig(momentum=0.9), SGDConfig()]
)
def test_a_skipped_step_leaves_the_weights_and_the_optimizer_as_they_are(
    config: OptimizerConfig, fused: bool
) -> None:
    def made(weight: nn.Parameter) -> torch.optim.Optimizer:
        optimizer = build_optimizer(config, [weight], 0.1)
        optimizer.param_groups[0]["fused"] = fused or None
        return optimizer

    def steps(skipped: set[int]) -> tuple[torch.Tensor, Any]:
        weight = nn.Parameter(torch.arange(3.0))
        optimizer = made(weight)
        for step in range(4):
            weight.grad = torch.full((3,), math.nan if step in skipped else 0.5)
            skip_if(torch.tensor(step in skipped), optimizer)
            optimizer.step()
            optimizer.zero_grad()
        return weight.detach(), optimizer.state_dict()["state"]

    weight, state = steps({0, 2, 3})
    only = nn.Parameter(torch.arange(3.0))
    optimizer = made(only)
    only.grad = torch.full((3,), 0.5)
    optimizer.step()

    assert torch.equal(weight, only)
    torch.testing.assert_close(state, optimizer.state_dict()["state"], rtol=0, atol=0)


def test_a_group_that_a_callback_adds_may_skip_its_first_step() -> None:
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    optimizer = build_optimizer(SGDConfig(momentum=0.9), weights[:1], 0.1)
    optimizer.add_param_group({"params": weights[1:]})
    for is_skipped in (True, False):
        for weight in weights:
            weight.grad = torch.full((2,), math.nan if is_skipped else 1.0)
        skip_if(torch.tensor(is_skipped), optimizer)
        optimizer.step()

    for weight in weights:
        torch.testing.assert_close(weight.detach(), torch.full((2,), -0.1))


def test_a_step_that_follows_without_a_condition_is_taken() -> None:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    optimizer = build_optimizer(SGDConfig(), [weight], 0.1)
    skip_if(torch.tensor(True), optimizer)
    optimizer.step()
    end_skip(optimizer)
    assert not weight.any()

    optimizer.step()

    torch.testing.assert_close(weight.detach(), torch.full((2,), -0.1))


def test_an_optimiser_that_is_not_of_torch_loses_the_gradients_instead() -> None:
    class Own(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> None:
            pass

    weight = nn.Parameter(torch.zeros(2))
    optimizer = Own([weight], {"fused": True})
    for is_skipped in (False, True):
        weight.grad = torch.ones(2)
        skip_if(torch.tensor(is_skipped), optimizer)
        assert (weight.grad is None) is is_skipped


def test_the_schedule_of_torch_is_refreshed_after_a_held_out_loss() -> None:
    config = train(schedule={"kind": "plateau", "factor": 0.5})
    losses: list[float] = []
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = HeldOutSchedule(optimizer, config, 10, lambda: losses)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 2.0

    losses += [1.0, 3.0]
    schedule.refresh()
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert set(schedule.state_dict()) <= set(
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0).state_dict()
    )


def test_the_rate_rises_linearly_to_its_peak() -> None:
    config = train(warmup_steps=3, schedule={"kind": "constant"})

    assert [learning_rate(config, step, 100) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({"kind": "constant"}, [2, 2, 2, 2, 2]),
        ({"kind": "cosine", "final_rate": 0.5}, [2, 1.5 + math.sqrt(0.125), 1.5, None, 1]),
        ({"kind": "linear"}, [2, 1.5, 1, 0.5, 0]),
        ({"kind": "linear", "final_rate": 0.5}, [2, 1.75, 1.5, 1.25, 1]),
        ({"kind": "linear", "hold": 0.4}, [2, 2, 2, 1, 0]),
        ({"kind": "inverse_sqrt"}, [2, 2, 2 / math.sqrt(2), 2 / math.sqrt(3), 1]),
    ],
)
def test_the_rate_falls_as_the_schedule_says(
    schedule: dict[str, object], rates: list[float | None]
) -> None:
    config = train(schedule=schedule)

    for step, rate in enumerate(rates):
        if rate is not None:
            assert learning_rate(config, step, 5) == pytest.approx(rate), step


@given(
    steps=st.integers(1, 50),
    warmup=st.integers(0, 60),
    kind=st.sampled_from(["cosine", "linear", "inverse_sqrt", "constant", "plateau"]),
)
def test_the_rate_is_between_0_and_its_peak_and_never_rises_after_the_warm_up(
    steps: int, warmup: int, kind: str
) -> None:
    config = train(warmup_steps=warmup, schedule={"kind": kind})
    rates = [learning_rate(config, step, steps) for step in range(steps + 5)]

    assert all(0 <= rate <= 2.0 for rate in rates)
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


@pytest.mark.parametrize(
    ("losses", "patience", "fallen"),
    [
        ([], 0, 0),
        ([5, 4, 3], 0, 0),
        ([5, 5], 0, 1),
        ([5, 4, 4.5, 4.4], 0, 2),
        ([5, 4, 4.5, 4.4], 1, 1),
        ([5, 4, 4.5, 3.9, 4.4], 1, 0),
        ([5, 6, 6, 6, 6], 1, 2),
    ],
)
def test_the_rate_falls_after_evaluations_in_a_row_without_improvement(
    losses: list[float], patience: int, fallen: int
) -> None:
    config = train(schedule={"kind": "plateau", "factor": 0.5, "patience": patience})

    assert drops(losses, patience) == fallen
    assert learning_rate(config, 7, 100, losses) == 2.0 * 0.5**fallen


@pytest.mark.parametrize(
    ("losses", "begun"),
    [
        ([], False),
        ([5, 4], False),
        ([4, 5], False),
        ([4, 5, 5], False),
        ([4, 5, 5, 5], True),
        ([4, 5, 5, 3], False),
        ([4, 5, 5, 4.5, 3], True),
        ([6, 5, 4, 5, 5], False),
        ([6, 5, 4, 5, 5, 4.5], True),
    ],
)
def test_averaging_begins_at_a_loss_worse_than_the_best_before_the_last_two(
    losses: list[float], begun: bool
) -> None:
    assert averages(losses, 2) is begun


def test_the_average_is_the_mean_of_the_weights_since_it_began() -> None:
    weight = torch.tensor([1.0, 5.0])
    average = WeightAverage([weight])
    for values in ([3.0, 5.0], [5.0, 2.0]):
        average.add([torch.tensor(values)], torch.tensor(False))
        average.add([torch.tensor([9.0, 9.0])], torch.tensor(True))  # a skipped step does not count

    torch.testing.assert_close(average.tensors[0], torch.tensor([3.0, 4.0]))
    assert average.steps == 3
    assert weight.tolist() == [1.0, 5.0], "the weights themselves stay"


def test_another_device_averages_without_a_read_by_the_host() -> None:
    """A device without values stands for a GPU: it cannot be read."""
    weight = torch.zeros(2, device="meta")
    average = WeightAverage([weight])
    average.add([weight], torch.zeros((), dtype=torch.bool, device="meta"))

    with pytest.raises(RuntimeError, match="meta"):
        assert average.steps


def test_the_average_needs_no_float64_which_mps_lacks() -> None:
    class Types(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            assert not isinstance(result, torch.Tensor) or result.dtype != torch.float64
            return result

    weight = torch.zeros(2, device="meta")
    with Types():
        WeightAverage([weight]).add([weight], torch.zeros((), dtype=torch.bool, device="meta"))


@pytest.mark.parametrize("steps", [2, 3, 7, 1_000_003])
def test_a_share_of_the_average_has_the_same_bits_as_a_tensor(steps: int) -> None:
    """As on a GPU, where it is one."""
    mean, weight = torch.randn(2, 1000, generator=torch.Generator().manual_seed(steps))
    average = WeightAverage([mean], steps - 1)
    average.add([weight], torch.tensor(False))

    share = (torch.tensor(True) / torch.tensor(steps, dtype=torch.float64)).to(torch.float32)
    assert torch.equal(average.tensors[0], mean.clone().lerp_(weight, share))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_adagrad_is_fused_where_torch_has_it(device: str) -> None:
    weight = nn.Parameter(torch.zeros(2, device=device))
    [group] = build_optimizer(AdagradConfig(), [weight], 0.1).param_groups
    assert group["fused"] is (True if device == "cpu" else None)
    assert group["foreach"] is None  # torch chooses to compute many weights at once


def test_a_fused_optimiser_has_the_numbers_of_steps_on_its_device() -> None:
    """Also if the state is of one that is not fused, whose numbers are on the CPU."""
    weight = nn.Parameter(torch.zeros(2, device="meta"))
    optimizer = torch.optim.Adam([weight, nn.Parameter(torch.zeros(1))], fused=None)
    optimizer.state[weight] = {"step": torch.tensor(3.0)}
    optimizer.defaults["fused"] = True
    use_own_implementation(optimizer)

    assert optimizer.param_groups[0]["fused"] is True
    assert optimizer.state[weight]["step"].device.type == "meta"
    assert len(optimizer.state) == 1
