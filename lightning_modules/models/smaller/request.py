"""What is asked of a smaller model, and what its settings alone can refuse. Imports no torch."""

from typing import NamedTuple

from lightning_modules.config import (
    AdaptiveSoftmaxConfig,
    EmbeddingInputConfig,
    ModelConfig,
    WordCharCNNInputConfig,
)
from preprocess.errors import UserError
from preprocess.tokenizers.base import CONTROLS


class SmallerError(UserError):
    """A model cannot be made smaller in the requested way; the message says what is possible."""


class Names(NamedTuple):
    """What the user calls each setting, for messages.

    Attributes:
        layers, input_rank, vocabulary: the settings of `Reduction`.
        no_head: what leaves the output layer out.
    """

    layers: str
    input_rank: str
    vocabulary: str
    no_head: str


OF_EXPORT = Names(
    "export.layers", "export.input_rank", "export.vocabulary", "set export.head to false"
)
OF_COMMAND = Names("--layers", "--input-rank", "--vocabulary", "add --no-head")


class Reduction(NamedTuple):
    """How a model is made smaller; None leaves a part as it is.

    Attributes:
        layers: number of recurrent layers to keep, the lowest ones.
        input_rank: rank of the input matrix.
        vocabulary: number of ids to keep, the first ones, control tokens included.
        names: names of the settings, for messages.
    """

    layers: int | None = None
    input_rank: int | None = None
    vocabulary: int | None = None
    names: Names = OF_EXPORT

    @property
    def is_empty(self) -> bool:
        """Whether nothing is made smaller."""
        return self.layers is self.input_rank is self.vocabulary is None


def check_layers(model: ModelConfig, head: bool, layers: int, names: Names) -> None:
    """Check a number of recurrent layers to keep.

    Args:
        model: the network.
        head: whether its output layer is kept.
        layers: number of layers to keep.
        names: names of the settings, for messages.

    Raises:
        SmallerError: the model does not have more layers, or keeps its output layer, which reads the
            top layer.
    """
    present = model.recurrent.layers
    if not 1 <= layers < present:
        possible = f"choose 1 to {present - 1}" if present > 2 else "choose 1"
        possible = possible if present > 1 else f"none can be dropped, leave {names.layers} out"
        raise SmallerError(
            f"{names.layers}: {layers} layers are to be kept, but the model has {present} recurrent "
            f"{'layer' if present == 1 else 'layers'}; {possible}"
        )
    if head:
        raise SmallerError(
            f"{names.layers}: the output layer reads the top layer, which is dropped; {names.no_head}"
        )


def check_rank(model: ModelConfig, head: bool, rank: int, names: Names) -> None:
    """Check a rank of the input matrix; ``model``, ``head`` and ``names`` as in `check_layers`.

    Raises:
        SmallerError: the input has no matrix with a row per id, the rank is not lower than its width,
            or the output layer shares it.
    """
    config, width = model.input, model.recurrent.direction_width
    if isinstance(config, WordCharCNNInputConfig) and config.word_dim:
        dim = config.word_dim
    elif isinstance(config, EmbeddingInputConfig):
        dim = config.dim or width
    else:
        raise SmallerError(f"{names.input_rank}: {_no_matrix(config.kind)}; leave it out")
    limit = min(dim, width)
    if not 1 <= rank < limit:
        raise SmallerError(
            f"{names.input_rank}: {rank} is not a lower rank than that of the input matrix ({limit}); "
            + (f"choose 1 to {limit - 1}" if limit > 1 else "leave it out")
        )
    if model.tied and head:
        raise SmallerError(
            f"{names.input_rank}: the output layer shares the input vectors (model.tied) and needs their "
            f"full width; {names.no_head}"
        )


def _no_matrix(kind: str) -> str:
    """Return why an input encoder has no matrix to approximate."""
    if kind == "adaptive":
        return "the input vectors of rare ids are already narrower (model.input.kind=adaptive)"
    return f"the input vectors are computed from characters (model.input.kind={kind})"


def check_vocabulary(
    model: ModelConfig, head: bool, ids: int, kind: str, vocabulary: int, names: Names
) -> None:
    """Check a number of ids to keep; ``model``, ``head`` and ``names`` as in `check_layers`.

    Args:
        model: the network.
        head: whether its output layer is kept.
        ids: number of ids that the model has.
        kind: kind of its tokenizer.
        vocabulary: number of ids to keep.
        names: names of the settings, for messages.

    Raises:
        SmallerError: the tokenizer has no words, the vocabulary is not smaller or has no word, or ids of
            an adaptive softmax that is kept would be dropped.
    """
    if kind != "word":
        raise SmallerError(
            f"{names.vocabulary}: the tokenizer is {kind}, and without some of its pieces a text "
            f"is cut into others; only a word tokenizer can be cut, so leave {names.vocabulary} out"
        )
    least = len(CONTROLS) + 1
    if not least <= vocabulary < ids:
        possible = f"choose {least} to {ids - 1:,}" if ids > least else "leave it out"
        raise SmallerError(
            f"{names.vocabulary}: {vocabulary:,} ids are to be kept, but the model has {ids:,}, of "
            f"which {len(CONTROLS)} are control tokens; {possible}"
        )
    before, after = model.predictable_ids(ids), model.predictable_ids(vocabulary)
    if head and isinstance(model.head, AdaptiveSoftmaxConfig) and after < before:
        remedy = f"choose at least {before:,}, or {names.no_head}"
        if before == ids:
            remedy = names.no_head
        if model.tied:
            remedy = f"its vectors are also those of the input (model.tied), so leave {names.vocabulary} out"
        raise SmallerError(
            f"{names.vocabulary}: an adaptive softmax without some of its {before:,} ids is not normalised "
            f"over the others; {remedy}"
        )
