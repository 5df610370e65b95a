"""Models as ONNX files.

A file has the same bytes whenever it is made from the same model with the same packages: what the exporter
records of the source code (places, stack traces, names of modules) is removed.
"""

from typing import Any

import torch

from lightning_modules.portable.errors import PortableError
from lightning_modules.portable.program import AXES, OUTPUTS, Form, export_program, input_names
from lightning_modules.quiet import quiet
from lightning_modules.vectors.pretrained import BiLM

OPSET = 18
"""Version of ONNX's operators; ONNX Runtime reads it since version 1.14."""
MOST_BYTES = 2**31 - 2**20
"""Largest size of the weights; a protocol buffer has less than 2 GiB."""


def onnx_file(model: BiLM, form: Form = "text") -> bytes:
    """Return the model as the content of an ONNX file; see `export_program` for what it computes.

    Args:
        model: the model, in float32.
        form: as in `export_program`.

    Raises:
        PortableError: the model has recurrent layers that cannot be exported, or more weights than an ONNX
            file can hold.
    """
    program = export_program(model, form)
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > MOST_BYTES:
        raise PortableError(
            f"the model has {size / 1e9:.1f} GB of weights, but an ONNX file holds at most "
            f"{MOST_BYTES / 1e9:.1f} GB; use a model with fewer input vectors, or torch.export"
        )
    # Messages about packages that are not needed here, and about torch's own code.
    with quiet("torch.onnx._internal.exporter"):
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[*input_names(model, form)],
            output_names=[*OUTPUTS[form]],
            opset_version=OPSET,
            verbose=False,
        )
    assert exported is not None
    proto = exported.model_proto
    _name_axes(proto.graph)
    _remove_sources(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _name_axes(graph: Any) -> None:
    """Give the axes of inputs and outputs the names of `AXES`."""
    names: dict[str, str] = {}
    for value in graph.input:
        sizes = value.type.tensor_type.shape.dim
        for axis, name in AXES[value.name].items():
            names[sizes[axis].dim_param] = name
    for value in (*graph.input, *graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = names[size.dim_param]


def _remove_sources(proto: Any) -> None:
    """Remove what describes the program that made a model, and the shapes of inner values."""
    del proto.metadata_props[:]
    graphs = [proto.graph]
    while graphs:
        graph = graphs.pop()
        graph.doc_string = ""
        del graph.metadata_props[:]
        del graph.value_info[:]
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.doc_string = ""
            del value.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
