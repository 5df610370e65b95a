"""The tensors of an ELMo archive: their names and shapes, and conversion to and from biloom's.

The layout is that of bilm-tf's `dump_weights`, which AllenNLP reads too. An archive describes the
same arithmetic as `CharCNN` and `LSTMLayer` with forget_bias 1; only layout and gate order differ:

    archive                                            biloom
    char_embed (261, d); readers prepend a zero row    input.characters.weight (261, d)
    CNN/W_cnn_i (1, width, d, n)                       input.filters.i (width * d, n)
    CNN_high_i/W_carry, W_transform (F, F), x @ W      input.highway.i.linear.weight (2 F, F)
    CNN_proj/W_proj (F, P)                             input.projection.weight (P, F)
    LSTMCell/W_0 (2 P, 4 D), rows x, then h; gates i, j, f, o
                                                       weight_input, weight_hidden (2, P, 4 D); i, f, j, o
    LSTMCell/W_P_0 (D, P)                              weight_projection (2, D, P)

d: width of a character; n: filters of convolution i; F: all filters; P, D: projection and hidden
size of the LSTM; 2: directions; gates: input i, cell input j, forget f, output o.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from lightning_modules.config import CharCNNInputConfig, ModelConfig
from lightning_modules.models.elmo_errors import ElmoError
from lightning_modules.recurrent_config import LSTMConfig
from preprocess.tokenizers.spellings import CHARACTERS

Floats = npt.NDArray[np.float32]


def archived_parts(config: ModelConfig) -> tuple[CharCNNInputConfig, LSTMConfig]:
    """Return the input encoder and the recurrent stack of a network that an archive can represent.

    Raises:
        ElmoError: an ELMo archive cannot represent the network; the message names the setting.
    """
    cnn, lstm = config.input, config.recurrent
    if not isinstance(cnn, CharCNNInputConfig) or cnn.kind != "char_cnn":
        raise ElmoError(f"model.input.kind is {cnn.kind}, but an ELMo archive needs char_cnn")
    if not isinstance(lstm, LSTMConfig):
        raise ElmoError(f"model.recurrent.kind is {lstm.kind}, but an ELMo archive needs lstm")
    if config.directions != "both":
        raise ElmoError("model.directions is forward, but an ELMo archive needs both")
    if lstm.projection is None and lstm.projection_clip is not None:
        raise ElmoError(
            "model.recurrent.projection_clip is set without a projection, which an ELMo archive "
            "cannot represent; train with projection_clip=null"
        )
    if lstm.forget_bias not in (0.0, 1.0):
        raise ElmoError(
            f"model.recurrent.forget_bias is {lstm.forget_bias}, but an ELMo archive needs 1 or 0"
        )
    return cnn, lstm


def layout(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each tensor in the archive of a network.

    Raises:
        ElmoError: as in `archived_parts`.
    """
    cnn, lstm = archived_parts(config)
    filters, width, hidden = sum(n for _, n in cnn.filters), lstm.direction_width, lstm.hidden
    shapes: dict[str, tuple[int, ...]] = {"char_embed": (CHARACTERS, cnn.dim)}
    for i, (size, number) in enumerate(cnn.filters):
        shapes[f"CNN/W_cnn_{i}"], shapes[f"CNN/b_cnn_{i}"] = (1, size, cnn.dim, number), (number,)
    for i in range(cnn.highway):
        for kind in ("carry", "transform"):
            shapes[f"CNN_high_{i}/W_{kind}"] = (filters, filters)
            shapes[f"CNN_high_{i}/b_{kind}"] = (filters,)
    if filters != width:
        shapes["CNN_proj/W_proj"], shapes["CNN_proj/b_proj"] = (filters, width), (width,)
    for cell in _cells(lstm):
        shapes[f"{cell}/W_0"], shapes[f"{cell}/B"] = (2 * width, 4 * hidden), (4 * hidden,)
        if lstm.projection is not None:
            shapes[f"{cell}/W_P_0"] = (hidden, width)
    return shapes


def _cells(lstm: LSTMConfig) -> Iterator[str]:
    """Yield the name of each LSTM cell: all layers of the forward direction, then of the backward."""
    for direction in range(2):
        for layer in range(lstm.layers):
            yield f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"


def from_archive(theirs: Mapping[str, Floats], config: ModelConfig) -> dict[str, Floats]:
    """Return an archive's tensors under the names and in the layout of a `BiLMNetwork`.

    Args:
        theirs: tensors with the names and shapes of `layout`.
        config: the network, with forget_bias 1.
    """
    cnn, lstm = archived_parts(config)
    ours = {"input.characters.weight": theirs["char_embed"]}
    for i in range(len(cnn.filters)):
        kernel = theirs[f"CNN/W_cnn_{i}"]
        ours[f"input.filters.{i}"] = kernel.reshape(-1, kernel.shape[3])
    ours["input.bias"] = np.concatenate([theirs[f"CNN/b_cnn_{i}"] for i in range(len(cnn.filters))])
    for i in range(cnn.highway):
        gates = [theirs[f"CNN_high_{i}/W_{kind}"].T for kind in ("carry", "transform")]
        biases = [theirs[f"CNN_high_{i}/b_{kind}"] for kind in ("carry", "transform")]
        ours[f"input.highway.{i}.linear.weight"] = np.concatenate(gates)
        ours[f"input.highway.{i}.linear.bias"] = np.concatenate(biases)
    if "CNN_proj/W_proj" in theirs:
        ours["input.projection.weight"] = theirs["CNN_proj/W_proj"].T.copy()
        ours["input.projection.bias"] = theirs["CNN_proj/b_proj"]
    cells = list(_cells(lstm))
    for layer in range(lstm.layers):
        name, pair = f"recurrent.layers.{layer}", cells[layer :: lstm.layers]
        kernels = np.stack([_swapped(theirs[f"{cell}/W_0"]) for cell in pair])
        ours[f"{name}.weight_input"], ours[f"{name}.weight_hidden"] = (
            half.copy() for half in np.split(kernels, 2, 1)
        )
        ours[f"{name}.bias"] = np.stack([_swapped(theirs[f"{cell}/B"]) for cell in pair])
        if lstm.projection is not None:
            ours[f"{name}.weight_projection"] = np.stack([theirs[f"{cell}/W_P_0"] for cell in pair])
    return ours


def to_archive(ours: Mapping[str, Floats], config: ModelConfig) -> dict[str, Floats]:
    """Return a network's tensors under the names and in the layout of the archive.

    The inverse of `from_archive`. If forget_bias is 0, 1 is subtracted from the bias of the forget
    gate, because readers of archives add 1.

    Args:
        ours: state dict of a `BiLMNetwork`; an output layer is ignored.
        config: the network.
    """
    cnn, lstm = archived_parts(config)
    theirs = {"char_embed": ours["input.characters.weight"]}
    ends = np.cumsum([number for _, number in cnn.filters])[:-1]
    for i, bias in enumerate(np.split(ours["input.bias"], ends)):
        size, number = cnn.filters[i]
        theirs[f"CNN/W_cnn_{i}"] = ours[f"input.filters.{i}"].reshape(1, size, cnn.dim, number)
        theirs[f"CNN/b_cnn_{i}"] = bias
    for i in range(cnn.highway):
        for kind, weight, bias in zip(
            ("carry", "transform"),
            np.split(ours[f"input.highway.{i}.linear.weight"], 2),
            np.split(ours[f"input.highway.{i}.linear.bias"], 2),
            strict=True,
        ):
            theirs[f"CNN_high_{i}/W_{kind}"] = weight.T
            theirs[f"CNN_high_{i}/b_{kind}"] = bias
    if "input.projection.weight" in ours:
        theirs["CNN_proj/W_proj"] = ours["input.projection.weight"].T
        theirs["CNN_proj/b_proj"] = ours["input.projection.bias"]
    for number, cell in enumerate(_cells(lstm)):
        direction, layer = divmod(number, lstm.layers)
        name = f"recurrent.layers.{layer}"
        parts = [ours[f"{name}.{part}"][direction] for part in ("weight_input", "weight_hidden")]
        theirs[f"{cell}/W_0"] = _swapped(np.concatenate(parts))
        bias = ours[f"{name}.bias"][direction].copy()
        if lstm.forget_bias == 0:
            bias[lstm.hidden : 2 * lstm.hidden] -= 1
        theirs[f"{cell}/B"] = _swapped(bias)
        if lstm.projection is not None:
            theirs[f"{cell}/W_P_0"] = ours[f"{name}.weight_projection"][direction]
    return theirs


def _swapped(gates: Floats) -> Floats:
    """Swap the second and third of the four gates (last axis); its own inverse."""
    i, j, f, o = np.split(gates, 4, -1)
    return np.concatenate([i, f, j, o], -1)
