"""The count by arithmetic is that of the network that is built."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.cutoffs import tail_widths
from lightning_modules.sizes import parameter_count

WIDTHS = st.integers(1, 9)
FILTERS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=3)
INPUTS = st.one_of(
    st.fixed_dictionaries({"kind": st.just("embedding"), "dim": st.none() | WIDTHS}),
    st.just({"kind": "adaptive"}),
    st.fixed_dictionaries(
        {
            "kind": st.just("char_cnn"),
            "dim": st.integers(1, 4),
            "max_characters": st.integers(5, 9),
            "filters": FILTERS,
            "highway": st.integers(0, 2),
        }
    ),
)
RECURRENT = st.one_of(
    st.fixed_dictionaries(
        {"kind": st.just("lstm"), "hidden": WIDTHS, "projection": st.none() | WIDTHS}
    ),
    st.fixed_dictionaries({"kind": st.just("gru"), "hidden": WIDTHS}),
)
HEADS = st.one_of(
    st.just({"kind": "softmax"}),
    st.just({"kind": "sampled_softmax"}),
    st.fixed_dictionaries(
        {"kind": st.just("adaptive_softmax"), "div": st.sampled_from([1.0, 2.0, 4.0])}
    ),
)
MODELS = st.fixed_dictionaries(
    {
        "directions": st.sampled_from(["both", "forward"]),
        "input": INPUTS,
        "recurrent": st.builds(
            lambda kind, layers: kind | {"layers": layers}, RECURRENT, st.integers(1, 3)
        ),
        "head": HEADS,
        "tied": st.booleans(),
        "output_vocabulary": st.none() | st.sampled_from([19, 23, 50]),
    }
)


def fits(model: dict[str, Any]) -> bool:
    try:
        ModelConfig.model_validate(model)
    except ValidationError:
        return False
    return True


@settings(deadline=None, max_examples=120)
@given(MODELS.filter(fits), st.sampled_from([(), (5,), (5, 17)]))
def test_it_counts_what_the_network_has(model: dict[str, Any], cutoffs: tuple[int, ...]) -> None:
    config = ModelConfig.model_validate(model)
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
