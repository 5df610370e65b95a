"""The steps of recurrent layers, run by a loop here, beside the layers themselves."""

import pytest
import torch

from biloom import BiLM
from lightning_modules.portable import recurrence
from lightning_modules.portable.errors import PortableError
from lightning_modules.portable.recurrence import Steps, steps_of
from tests.exportable_models import make_model


def layer_of(model: BiLM) -> torch.nn.Module:
    return model.network.recurrent.layers[-1]


@pytest.mark.parametrize("name", ["embedding", "gru", "hgrn2", "sru", "plain"])
@pytest.mark.parametrize("direction", [0, 1])
def test_steps_are_those_of_the_layer(name: str, direction: int) -> None:
    layer = layer_of(make_model(name)).double()
    steps: Steps = steps_of(layer, "", direction)
    x = torch.randn(2, 7, 3, layer.config.direction_width, dtype=torch.float64)  # type: ignore[union-attr]
    before = torch.randn(2, 3, sum(steps.widths), dtype=torch.float64)
    with torch.no_grad():
        expected, after = layer(x, before, None)

    state = before[direction].split(steps.widths, 1)
    for t, prepared in enumerate(steps.prepare(x[direction])):
        state, output = steps.step(state, prepared)
        torch.testing.assert_close(output, expected[direction, t], rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat(state, 1), after[direction], rtol=0, atol=1e-12)


def test_a_layer_without_a_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrence, "STEPS", {})
    with pytest.raises(PortableError) as caught:
        steps_of(layer_of(make_model("gru")), "gru", 0)
    assert str(caught.value) == (
        "a model with model.recurrent.kind=gru cannot be exported to ONNX or with torch.export; only lstm, "
        "gru, hgrn2 and sru can"
    )
