"""Models as programs of torch.export, which run without biloom's classes."""

from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.portable.network import StreamNetwork, TextNetwork
from lightning_modules.vectors.pretrained import BiLM

Form = Literal["text", "stream"]
"""What a program reads: whole texts, or parts of texts in the forward direction."""

INPUTS: dict[Form, tuple[str, ...]] = {
    "text": ("ids", "lengths"),
    "stream": ("ids", "lengths", "begins", "state"),
}
"""Names of the inputs, in order; "characters" follows if words are read by their spelling."""
OUTPUTS: dict[Form, tuple[str, ...]] = {"text": ("layers",), "stream": ("layers", "state_after")}
"""Names of the outputs, in order."""
AXES: dict[str, dict[int, str]] = {
    "ids": {0: "batch", 1: "time"},
    "lengths": {0: "batch"},
    "begins": {0: "batch"},
    "state": {1: "batch"},
    "characters": {0: "words", 1: "columns"},
}
"""Names of the axes of each input that have any size from 1 on."""


def is_spelled(model: BiLM) -> bool:
    """Return True if the model reads words by their spelling."""
    return isinstance(model.network.input, CharCNN)


def input_names(model: BiLM, form: Form) -> tuple[str, ...]:
    """Return the names of a program's inputs, in order."""
    return (*INPUTS[form], *(("characters",) if is_spelled(model) else ()))


def export_program(model: BiLM, form: Form = "text") -> ExportedProgram:
    """Return the model as a program of torch.export, with any batch size and number of tokens.

    A program computes the vectors of all layers, without dropout and without gradients; it has the weights
    as they are now, on their device and in their dtype. ``torch.export.save(program, "model.pt2")`` writes
    it to a file, and ``torch.export.load("model.pt2").module()`` is a function of the inputs. Reading it
    needs torch only.

    Args:
        model: the model.
        form: "text": a program as `lightning_modules.portable.network.TextNetwork.forward`, for whole
            texts. "stream": a program as `lightning_modules.portable.network.StreamNetwork.forward`, for
            texts that are read in parts; forward direction only.

    Raises:
        PortableError: the model has recurrent layers that cannot be exported.

    Example:
        >>> program = export_program(BiLM.from_pretrained("runs/quickstart/export"))
        >>> ids, lengths = torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([3, 2])
        >>> program.module()(ids, lengths).shape  # (depth, batch, time, dim)
        torch.Size([3, 2, 3, 192])
    """
    network = _frozen(TextNetwork(model) if form == "text" else StreamNetwork(model))
    names = input_names(model, form)
    axes = {name: Dim(name) for name in ("batch", "time", "words", "columns")}
    examples = _examples(model)
    shapes = tuple({axis: axes[of] for axis, of in AXES[name].items()} for name in names)
    with torch.no_grad():
        return torch.export.export(
            network, tuple(examples[name] for name in names), dynamic_shapes=shapes, strict=False
        )


def _frozen(network: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode whose weights need no gradient; it shares their memory."""
    shared: dict[int, Any] = {id(buffer): buffer for buffer in network.buffers()}
    for parameter in network.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    return deepcopy(network, shared).eval()


def _examples(model: BiLM) -> dict[str, Tensor]:
    """Return inputs to trace with; no two axes of different names have the same size."""
    batch, time, words, columns = 2, 3, 4, 5
    weights = next(model.network.parameters())
    device = weights.device
    state = model.network.zero_state(batch)[:, 0].to(weights.dtype).contiguous()
    return {
        "ids": torch.zeros(batch, time, dtype=torch.int64, device=device),
        "lengths": torch.tensor([time, time - 1], device=device),
        "begins": torch.tensor([True, False], device=device),
        "state": state,
        "characters": torch.zeros(words, columns, dtype=torch.int64, device=device),
    }
