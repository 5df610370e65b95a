"""The weights of an ELMoForManyLangs model: token_embedder.pkl and encoder.pkl, two torch state dicts.

The arithmetic is that of `WordCharCNN` and `LSTMLayer`; only layout and names differ:

    theirs                                          biloom
    char_emb_layer.embedding.weight (c, d)          input.characters.weight (c, d), other order
    word_emb_layer.embedding.weight (w, e)          input.words.weight (3 + w, e), control tokens first
    convolutions.i.weight (n, d, width)             input.filters.i (width * d, n)
    convolutions.i.bias (n)                         input.bias (F), of all convolutions
    highways._layers.i.weight (2 F, F)              input.highway.i.linear.weight (2 F, F)
    projection.weight (P, e + F)                    input.projection.weight (P, e + F)
    forward_layer_l, backward_layer_l:
      input_linearity.weight (4 D, P)               weight_input (2, P, 4 D); gates i, f, g, o in both
      state_linearity.weight (4 D, P), bias (4 D)   weight_hidden (2, P, 4 D), bias (2, 4 D)
      state_projection.weight (P, D)                weight_projection (2, D, P)

c: characters; d: width of a character; w: words; e: width of a word; n: filters of convolution i;
F: all filters; P, D: projection and hidden size of the LSTM. Their highway layer has the transform
first and a gate that multiplies its input; ours has the gate first, which multiplies the transform,
so the gate's weights and bias are negated.
"""

import io
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lightning_modules.config import ModelConfig, WordCharCNNInputConfig
from lightning_modules.models.checkpoint_file import check_archive
from lightning_modules.models.elmo_errors import ElmoError, reading
from lightning_modules.models.manylangs.dictionaries import (
    CHARACTERS,
    WORDS,
    CharacterDictionary,
    WordDictionary,
)
from lightning_modules.models.stored_network import first_not_finite
from lightning_modules.recurrent_config import LSTMConfig
from preprocess.errors import one_line
from preprocess.files import storage

EMBEDDER, ENCODER = "token_embedder.pkl", "encoder.pkl"
CHARACTER_VECTORS, WORD_VECTORS = (
    f"{kind}_emb_layer.embedding.weight" for kind in ("char", "word")
)
POINTER = b"version https://git-lfs"
"""Beginning of a file that Git LFS leaves in place of a large one."""

AGAIN = "download or copy the model again"

Shapes = dict[str, tuple[int, ...]]


def read_weights(
    folder: str, config: ModelConfig, characters: CharacterDictionary, words: WordDictionary | None
) -> dict[str, Tensor]:
    """Return the weights of a model folder as a state dict of `BiLMNetwork`, without output layer.

    A file from an untrusted source cannot run code, and takes memory in proportion to its size.

    Args:
        folder: the model folder.
        config: the network, of `Options.config`.
        characters: char.dic of the folder.
        words: word.dic of the folder; None if the network has no vectors of words.

    Raises:
        ElmoError: a file is missing or damaged, or holds NaN or infinity; or its tensors do not fit the
            dictionaries or the options.
    """
    cnn, lstm = config.input, config.recurrent
    assert isinstance(cnn, WordCharCNNInputConfig)
    assert isinstance(lstm, LSTMConfig)
    path = storage.join(folder, EMBEDDER)
    embedder = _read(path)
    for name, dictionary, rows in (
        (CHARACTER_VECTORS, CHARACTERS, len(characters.rows)),
        (WORD_VECTORS, WORDS, len(words.words) if words else None),
    ):
        found = embedder.get(name)
        if rows is not None and found is not None and found.dim() == 2 and len(found) != rows:
            raise ElmoError(
                f"{path} has {len(found):,} rows of '{name}', but {dictionary} has {rows:,} entries; both "
                f"must be of one model, {AGAIN}"
            )
    _check(path, embedder, _embedder_shapes(cnn, lstm.direction_width, words))
    path = storage.join(folder, ENCODER)
    encoder = _read(path)
    _check(path, encoder, _encoder_shapes(lstm))
    return {**_input(embedder, cnn, characters, words), **_recurrent(encoder, lstm)}


def _read(path: str) -> dict[str, Tensor]:
    with reading(path, "copy it from the folder of the model"):
        data = storage.read_bytes(path)
    if data.startswith(POINTER):
        raise ElmoError(
            f"{path} is a pointer of Git LFS, not the weights; fetch them with `git lfs pull`"
        )
    try:
        if data.startswith(b"PK"):
            check_archive(io.BytesIO(data))
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types of exceptions
        if isinstance(error, MemoryError):
            raise
        reason = one_line(str(error).partition("\n")[0])[:200] or type(error).__name__
        raise ElmoError(f"{path} is damaged, or no file of weights ({reason}); {AGAIN}") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ElmoError(f"{path} holds no tensors by name; {AGAIN}")
    for name, value in state.items():
        # An expanded tensor takes more memory than the file when it is copied.
        if value.layout != torch.strided or value.numel() * value.element_size() > len(data):
            raise ElmoError(
                f"{path}: '{one_line(name)}' is no tensor with values of its own; {AGAIN}"
            )
    return dict(state)


def _check(path: str, state: Mapping[str, Tensor], shapes: Shapes) -> None:
    """Raise ElmoError if names, shapes or types differ, or a value is not finite."""
    if missing := sorted(shapes.keys() - state.keys()):
        raise ElmoError(
            f"{path}: '{missing[0]}' is missing; the file and the config must be of one model, {AGAIN}"
        )
    if unknown := sorted(state.keys() - shapes.keys()):
        raise ElmoError(
            f"{path}: '{one_line(unknown[0])}' is not in the network of the config; both must be of one "
            "model"
        )
    for name, shape in shapes.items():
        found = state[name]
        if tuple(found.shape) != shape or found.dtype != torch.float32:
            raise ElmoError(
                f"{path}: '{name}' is {str(found.dtype).removeprefix('torch.')} of shape "
                f"{tuple(found.shape)}, but the config needs float32 of shape {shape}; both must be of one "
                "model"
            )
    if bad := first_not_finite(state):
        raise ElmoError(
            f"{path}: '{bad}' holds NaN or infinity, so every vector would be wrong; {AGAIN}"
        )


def _embedder_shapes(
    cnn: WordCharCNNInputConfig, width: int, words: WordDictionary | None
) -> Shapes:
    filters = sum(number for _, number in cnn.filters)
    shapes: Shapes = {CHARACTER_VECTORS: (cnn.characters, cnn.dim)}
    if words:
        shapes[WORD_VECTORS] = (len(words.words), cnn.word_dim)
    for i, (size, number) in enumerate(cnn.filters):
        shapes[f"convolutions.{i}.weight"] = (number, cnn.dim, size)
        shapes[f"convolutions.{i}.bias"] = (number,)
    for i in range(cnn.highway):
        shapes[f"highways._layers.{i}.weight"] = (2 * filters, filters)
        shapes[f"highways._layers.{i}.bias"] = (2 * filters,)
    shapes["projection.weight"], shapes["projection.bias"] = (
        (width, cnn.word_dim + filters),
        (width,),
    )
    return shapes


def _encoder_shapes(lstm: LSTMConfig) -> Shapes:
    width, hidden = lstm.direction_width, lstm.hidden
    shapes: Shapes = {}
    for pair in _layers(lstm):
        for layer in pair:
            shapes[f"{layer}.input_linearity.weight"] = (4 * hidden, width)
            shapes[f"{layer}.state_linearity.weight"] = (4 * hidden, width)
            shapes[f"{layer}.state_linearity.bias"] = (4 * hidden,)
            shapes[f"{layer}.state_projection.weight"] = (width, hidden)
    return shapes


def _layers(lstm: LSTMConfig) -> Iterator[tuple[str, str]]:
    """Yield the names of the two directions of each layer."""
    for layer in range(lstm.layers):
        yield f"forward_layer_{layer}", f"backward_layer_{layer}"


def _input(
    theirs: Mapping[str, Tensor],
    cnn: WordCharCNNInputConfig,
    characters: CharacterDictionary,
    words: WordDictionary | None,
) -> dict[str, Tensor]:
    ours = {
        "input.code_points": torch.from_numpy(characters.code_points),
        "input.characters.weight": theirs[CHARACTER_VECTORS][torch.from_numpy(characters.rows)],
    }
    if words:
        ours["input.words.weight"] = theirs[WORD_VECTORS][torch.from_numpy(words.rows)]
    for i, (_, number) in enumerate(cnn.filters):
        weight = theirs[f"convolutions.{i}.weight"]
        ours[f"input.filters.{i}"] = weight.permute(2, 1, 0).reshape(-1, number)
    ours["input.bias"] = torch.cat(
        [theirs[f"convolutions.{i}.bias"] for i in range(len(cnn.filters))]
    )
    for i in range(cnn.highway):
        for kind in ("weight", "bias"):
            transform, gate = theirs[f"highways._layers.{i}.{kind}"].chunk(2)
            ours[f"input.highway.{i}.linear.{kind}"] = torch.cat([-gate, transform])
    for kind in ("weight", "bias"):
        ours[f"input.projection.{kind}"] = theirs[f"projection.{kind}"]
    return ours


def _recurrent(theirs: Mapping[str, Tensor], lstm: LSTMConfig) -> dict[str, Tensor]:
    ours = {}
    for number, pair in enumerate(_layers(lstm)):
        for name, part in (
            ("weight_input", "input_linearity.weight"),
            ("weight_hidden", "state_linearity.weight"),
            ("bias", "state_linearity.bias"),
            ("weight_projection", "state_projection.weight"),
        ):
            both = torch.stack([theirs[f"{layer}.{part}"] for layer in pair])
            ours[f"recurrent.layers.{number}.{name}"] = both if name == "bias" else both.mT
    return {name: weight.contiguous() for name, weight in ours.items()}
