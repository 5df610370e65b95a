"""The comparison of an ONNX file with PyTorch.

PyTorch documents the operation that an ONNX file is made from as a prototype, so each file is checked.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lightning_modules.portable.errors import PortableError
from lightning_modules.portable.feeds import Feeds, feeds_of_batch
from lightning_modules.portable.interface import FILES
from lightning_modules.portable.program import OUTPUTS, Form
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Text

TOLERANCE = 1e-4
"""Largest difference between a value of ONNX Runtime and of PyTorch, relative to the layer's largest value."""
PART = 7
"""Tokens of the parts in which a stream reads a text."""
AGAIN = "install the versions of torch, onnx, onnxscript and onnxruntime in constraints.txt, and export again"

Layers = npt.NDArray[np.float32]


def check_onnx_file(data: bytes, model: BiLM, texts: Sequence[Text], form: Form = "text") -> float:
    """Compare the vectors of texts that ONNX Runtime and PyTorch compute, on one thread of the CPU.

    A stream reads the texts in parts of `PART` tokens, and its vectors are compared with the forward
    halves of those of the whole texts.

    Args:
        data: an ONNX file.
        model: the model that it was made from, in float32 on the CPU.
        texts: the texts.
        form: what the file reads.

    Returns:
        The largest difference relative to the largest value of its layer.

    Raises:
        PortableError: it is above `TOLERANCE`, or ONNX Runtime cannot run the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    batch = model.batch(texts, "token")
    with torch.no_grad():
        expected = model(batch.ids, batch.lengths, batch.spellings).numpy()
    feeds = feeds_of_batch(model, batch)
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        if form == "text":
            (found,) = session.run(None, feeds)
        else:
            found = _in_parts(session, feeds, model)
            expected = expected[..., : model.network.direction_width]
    # ONNX Runtime has an error class for each kind of failure, without a common one.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise PortableError(
            f"{FILES[form]}: ONNX Runtime cannot run the exported model ({reason}); {AGAIN}"
        ) from error
    relative = _difference(expected, found, batch.lengths.tolist())
    if not relative <= TOLERANCE:
        raise PortableError(
            f"{FILES[form]}: ONNX Runtime computes other vectors than PyTorch: they differ by {relative:.2g} "
            f"of a layer's largest value, more than {TOLERANCE:g}; {AGAIN}"
        )
    return relative


def _in_parts(session: Any, feeds: Feeds, model: BiLM) -> Layers:
    """Return the layers of texts that are read in parts, (depth, batch, time, width of one direction)."""
    ids, lengths = feeds["ids"], feeds["lengths"]
    # Ones, because the state before the first part must not be read.
    state = np.ones((model.depth - 1, len(ids), model.network.zero_state(1).shape[3]), np.float32)
    found = []
    for start in range(0, ids.shape[1], PART):
        part = {
            "ids": ids[:, start : start + PART],
            "lengths": (lengths - start).clip(0, PART),
            "begins": np.full(len(ids), start == 0),
            "state": state,
        }
        layers, state = session.run([*OUTPUTS["stream"]], feeds | part)
        found.append(layers)
    return np.concatenate(found, 2)


def _difference(expected: Layers, found: Layers, lengths: Sequence[int]) -> float:
    """Return the largest difference relative to the largest value of its layer."""
    depth = len(expected)
    largest, difference = np.zeros(depth), np.zeros(depth)
    for row, length in enumerate(lengths):
        one, other = expected[:, row, :length], found[:, row, :length]
        largest = np.maximum(largest, np.abs(one).max((1, 2), initial=0))
        difference = np.maximum(difference, np.abs(one - other).max((1, 2), initial=0))
    return float((difference / largest.clip(min=1e-30)).max())
