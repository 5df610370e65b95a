"""The count by arithmetic is that of the network that is built."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.parameter_count import parameter_count, tail_widths


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["softmax", "adaptive_softmax"]),
    st.none() | st.integers(1, 9),
    st.none() | st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 3),
    st.sampled_from([(), (5,), (5, 17)]),
    st.sampled_from([1.0, 2.0, 4.0]),
)
def test_it_counts_what_the_network_has(
    kind: str,
    dim: int | None,
    projection: int | None,
    hidden: int,
    layers: int,
    cutoffs: tuple[int, ...],
    div: float,
) -> None:
    head: dict[str, Any] = {"kind": kind}
    if kind == "adaptive_softmax":
        head["div"] = div
    recurrent = {"hidden": hidden, "projection": projection, "layers": layers}
    config = ModelConfig.model_validate(
        {"input": {"dim": dim}, "recurrent": recurrent, "head": head}
    )
    network = BiLMNetwork(config, 23, cutoffs)

    assert parameter_count(config, 23, cutoffs) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("dim", "div", "widths"),
    [(128, 4.0, (32, 8, 2)), (4, 4.0, (1, 1, 1)), (10, 1.5, (6, 4, 2))],
)
def test_each_tail_is_narrower_by_the_same_factor(
    dim: int, div: float, widths: tuple[int, ...]
) -> None:
    assert tail_widths(dim, div, 3) == widths
