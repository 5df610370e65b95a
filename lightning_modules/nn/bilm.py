"""The bidirectional language model: input encoder, recurrent stack, output layer.

The directions share the input encoder and the output layer, as in ELMo (Peters et al. 2018, section
3.1). Each direction has its own recurrent stack and, in training, reads its own stream of text.
"""

from typing import NamedTuple

from torch import Tensor, nn

from lightning_modules.config import AdaptiveSoftmaxConfig, ModelConfig, WordCharCNNInputConfig
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax
from lightning_modules.nn.heads.cutoffs import check_cutoffs
from lightning_modules.nn.heads.routes import Routes
from lightning_modules.nn.heads.sampled_softmax import SampledSoftmax
from lightning_modules.nn.heads.softmax import FullSoftmax
from lightning_modules.nn.inputs.adaptive_input import AdaptiveInput
from lightning_modules.nn.inputs.embedding import TokenEmbedding, build_input
from lightning_modules.nn.recurrent.stack import Recurrent
from lightning_modules.nn.window import Types, Window
from lightning_modules.recurrent_config import NoRecurrenceConfig
from preprocess.errors import UserError

NO_HEAD = (
    "this model has no output layer, so it cannot score or generate text, or be trained; export it again "
    "with export.head=true (an imported ELMo model or a static model never has one)"
)
NO_RECURRENCE = (
    "model.recurrent.kind none is that of static models, which predict nothing and cannot be trained as a "
    "language model; use lstm, gru, hgrn2 or sru"
)
NOT_TRAINED = (
    "model.input.kind word_char_cnn is the input of imported ELMoForManyLangs models, which have no output "
    "layer and cannot be trained as a language model; use char_cnn"
)


class NoHead(nn.Module):
    """Placeholder for the output layer of a model that was exported without one."""

    cutoffs: tuple[int, ...] = ()

    def nll(
        self,
        hidden: Tensor,
        targets: Tensor,
        routes: Routes | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """Raise UserError, because nothing can be predicted."""
        raise UserError(NO_HEAD)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Raise UserError, because nothing can be predicted."""
        raise UserError(NO_HEAD)


Head = AdaptiveSoftmax | FullSoftmax | SampledSoftmax | NoHead

TIED_BOUND = 0.1
"""Tied vectors are initialised from U(-0.1, 0.1), as in AWD-LSTM; wider ones make large logits."""


class Losses(NamedTuple):
    """Losses of a window, and the recurrent state after it.

    Attributes:
        means: mean cross-entropy in nats over the targets >= 0, or 0 without such targets, shape
            (directions,).
        state: state after the window, as in `zero_state`, part of the autograd graph.
        activation: mean square of the top layer's outputs after dropout, shape () (activation
            regularisation, Merity et al. 2018, section 4.6); None if not requested.
        change: mean square of the difference between the top layer's outputs, before dropout, at
            consecutive tokens, shape () (temporal activation regularisation, same section); None if
            not requested.
        layers: the input vectors after dropout, and the output of each recurrent layer before dropout,
            layers + 1 tensors (directions, time, rows, direction_width).
        top: output of the top layer after dropout, which the output layer reads, same shape.
    """

    means: Tensor
    state: Tensor
    activation: Tensor | None
    change: Tensor | None
    layers: tuple[Tensor, ...]
    top: Tensor


class BiLMNetwork(nn.Module):
    """A language model per direction, with a shared input encoder and output layer.

    Weights are initialised in the order input encoder, recurrent stack, output layer, so
    torch.manual_seed determines them. Each module's docstring has its distributions. Tied vectors
    are U(-0.1, 0.1).

    Args:
        config: the network.
        vocabulary: number of ids.
        cutoffs: first rank of each tail of an adaptive softmax. ``config.head.cutoffs`` is not
            read, because "auto" depends on the corpus.
        ranks: frequency rank of each id that can be predicted, int64 (output_vocabulary,); None
            means that ids are ranks.
        head: whether to build the output layer.

    Raises:
        UserError: cutoffs do not increase within the vocabulary, ranks are not a permutation, or an
            output layer is wanted for the input of an imported model or without recurrent layers.

    Attributes:
        directions: 2, or 1 for a forward language model only.
        reading_directions: directions that have read a text up to a token: as ``directions``, but 0
            without recurrent layers.
        direction_width: width of one direction's output.
        width: width of all directions' outputs together.
        output_vocabulary: number of ids that can be predicted; others count as the unknown id.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: int,
        cutoffs: tuple[int, ...] = (),
        ranks: Tensor | None = None,
        head: bool = True,
    ) -> None:
        super().__init__()
        if head and isinstance(config.input, WordCharCNNInputConfig):
            raise UserError(NOT_TRAINED)
        if head and isinstance(config.recurrent, NoRecurrenceConfig):
            raise UserError(NO_RECURRENCE)
        self.directions = config.direction_count
        self.reading_directions = self.directions if config.recurrent.layers else 0
        self.direction_width = config.recurrent.direction_width
        self.width = self.directions * self.direction_width
        self.output_vocabulary = config.predictable_ids(vocabulary)
        check_cutoffs(cutoffs, self.output_vocabulary)
        div = config.head.div if isinstance(config.head, AdaptiveSoftmaxConfig) else 1.0
        encoder = build_input(config.input, vocabulary, self.direction_width, cutoffs, div, ranks)
        self.input = encoder
        self.recurrent = Recurrent(config.recurrent, self.directions)
        shared: nn.Module | None = None
        if config.tied and isinstance(encoder, TokenEmbedding):
            shared = encoder.embedding
            nn.init.uniform_(encoder.embedding.weight, -TIED_BOUND, TIED_BOUND)
        self.head: Head = NoHead()
        if head:
            self.head = _build_head(config, self.output_vocabulary, cutoffs, ranks, shared)
        if config.tied and isinstance(encoder, AdaptiveInput):
            assert isinstance(self.head, AdaptiveSoftmax), "a tied input needs the output layer"
            encoder.tie(self.head)

    def zero_state(self, rows: int) -> Tensor:
        """Return the initial state, zeros (layers, directions, rows, state_width), float32.

        It is on the device of the weights; see `Recurrent.zero_state`.
        """
        state: Tensor = self.recurrent.zero_state(rows, next(self.parameters()).device)
        return state

    def layers(
        self, inputs: Tensor | Types, state: Tensor, resets: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the input vectors and each layer's output, and the state after the last token.

        Args:
            inputs: as `Window.inputs`.
            state: state before the first token, as in `zero_state`.
            resets: as `Window.resets`.

        Returns:
            layers + 1 tensors (directions, time, rows, direction_width), float32, and the state.
        """
        x = self.input(inputs)  # (directions, time, rows, direction_width)
        run = self.recurrent(x, state, resets)
        return (x, *run.outputs), run.state

    def nll(self, window: Window, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of each target and the state after the window.

        No dropout is applied and nothing is sampled, whatever the module's mode. The cross-entropy
        is in nats, (directions, time, rows), and 0 where a target is below 0.
        """
        x = self.input(window.inputs, training=False)
        run = self.recurrent(x, state, window.resets, training=False)
        return self.target_nll(run.top, window, training=False), run.state

    def loss(self, window: Window, state: Tensor, penalties: bool = False) -> Losses:
        """Return the losses of a window.

        Args:
            window: inputs and targets.
            state: state before the window, as in `zero_state`.
            penalties: whether to compute `Losses.activation` and `Losses.change`.
        """
        x = self.input(window.inputs)
        run = self.recurrent(x, state, window.resets)
        top = run.top  # (directions, time, rows, direction_width)
        predicted = (window.targets >= 0).sum((1, 2)).clamp(min=1)  # (directions,)
        means = self.target_nll(top, window).sum((1, 2)) / predicted
        layers = (x, *run.outputs[:-1], run.raw)
        losses = Losses(means, run.state, None, None, layers, top)
        if not penalties:
            return losses
        change = run.raw[:, 1:] - run.raw[:, :-1]  # (directions, time - 1, rows, direction_width)
        return losses._replace(
            activation=top.float().square().mean(),
            # Not mean(), which is NaN for a window of one token.
            change=change.float().square().sum() / max(1, change.numel()),
        )

    def target_nll(self, top: Tensor, window: Window, training: bool | None = None) -> Tensor:
        """Return the loss of each target of a window, given the top layer's outputs.

        Args:
            top: (directions, time, rows, direction_width).
            window: only its targets and routes are read.
            training: whether a sampled softmax samples; None means its mode. Otherwise the loss is
                the cross-entropy, as in `nll`.
        """
        flat = top.reshape(-1, self.direction_width)  # (directions * time * rows, direction_width)
        nll: Tensor = self.head.nll(
            flat, window.targets.reshape(-1), window.routes, training=training
        )
        return nll.view(window.targets.shape)


def _build_head(
    config: ModelConfig,
    vocabulary: int,
    cutoffs: tuple[int, ...],
    ranks: Tensor | None,
    shared: nn.Module | None,
) -> Head:
    head, dim = config.head, config.recurrent.direction_width
    if head.kind == "adaptive_softmax":
        return AdaptiveSoftmax(head, dim, vocabulary, cutoffs, ranks)
    if head.kind == "sampled_softmax":
        return SampledSoftmax(head, dim, vocabulary, ranks, shared)
    return FullSoftmax(head, dim, vocabulary, shared)
