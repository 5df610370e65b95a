"""An ONNX file that computes other vectors than PyTorch is refused, in each form."""

import numpy as np
import onnx
import pytest
import torch

from lightning_modules.portable.comparison import PART, check_onnx_file
from lightning_modules.portable.errors import PortableError
from lightning_modules.portable.onnx_file import onnx_file
from lightning_modules.portable.program import Form
from tests.exportable_models import make_model, texts_of

pytestmark = pytest.mark.slow
FILES: dict[Form, str] = {"text": "model.onnx", "stream": "stream.onnx"}
TEXTS = [*texts_of(3, 2 * PART + 3), *texts_of(1, 2)]


def refusal(form: Form, what: str) -> str:
    return f"^{FILES[form]}: ONNX Runtime {what}"


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("name", ["embedding", "characters", "hgrn2"])
def test_the_file_of_the_model_is_accepted(name: str, form: Form) -> None:
    model = make_model(name)
    assert check_onnx_file(onnx_file(model, form), model, TEXTS, form) < 2e-6


@pytest.mark.parametrize("form", FILES)
def test_another_models_file_is_refused(form: Form) -> None:
    model = make_model("embedding")
    data = onnx_file(model, form)
    with torch.no_grad():
        model.network.recurrent.layers[1].bias[0, 3] += 0.01
    other = r"computes other vectors than PyTorch: they differ by 0.*more than 0\.0001; install the"
    with pytest.raises(PortableError, match=refusal(form, other)):
        check_onnx_file(data, model, TEXTS, form)
    cannot = r"cannot run the exported model \(.*constraints"
    for damaged in (data[:-100], b"this is no ONNX file"):
        with pytest.raises(PortableError, match=refusal(form, cannot)):
            check_onnx_file(damaged, model, TEXTS, form)


def test_a_stream_that_does_not_carry_its_state_is_refused() -> None:
    model = make_model("gru")
    proto = onnx.load_from_string(onnx_file(model, "stream"))
    graph = proto.graph
    for node in graph.node:
        # The state that is given back is the one that came in.
        node.output[:] = ["unused" if name == "state_after" else name for name in node.output]
    graph.node.append(onnx.helper.make_node("Identity", ["state"], ["state_after"]))
    data = proto.SerializeToString()
    with pytest.raises(PortableError, match=refusal("stream", "computes other vectors")):
        check_onnx_file(data, model, TEXTS, "stream")
    # In one part, nothing is carried.
    assert check_onnx_file(data, model, texts_of(2, PART), "stream") < 2e-6


def test_a_stream_that_reads_the_state_before_the_first_part_is_refused() -> None:
    model = make_model("gru")
    proto = onnx.load_from_string(onnx_file(model, "stream"))
    graph = proto.graph
    for node in graph.node:
        node.input[:] = ["never" if name == "begins" else name for name in node.input]
    never = onnx.numpy_helper.from_array(np.zeros(1, bool), "never")
    graph.initializer.append(never)
    with pytest.raises(PortableError, match=refusal("stream", "computes other vectors")):
        check_onnx_file(proto.SerializeToString(), model, TEXTS, "stream")
