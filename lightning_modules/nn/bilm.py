"""The bidirectional language model: input encoder, recurrent stack, output layer.

Both directions share the input encoder and the output layer, as in ELMo (Peters et al. 2018,
section 3.1); their stacks are independent, and so are the streams of text they read in training.
"""

from typing import NamedTuple

from torch import Tensor, nn

from lightning_modules.config import AdaptiveSoftmaxConfig, ModelConfig
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax, check_cutoffs
from lightning_modules.nn.heads.routes import Routes
from lightning_modules.nn.heads.sampled_softmax import SampledSoftmax
from lightning_modules.nn.heads.softmax import FullSoftmax
from lightning_modules.nn.inputs.adaptive_input import AdaptiveInput
from lightning_modules.nn.inputs.embedding import TokenEmbedding, build_input
from lightning_modules.nn.recurrent.stack import build_recurrent
from lightning_modules.nn.window import Types, Window
from preprocess.errors import UserError


class NoHead(nn.Module):
    """In the place of an output layer that a model folder was stripped of."""

    cutoffs: tuple[int, ...] = ()

    def nll(self, hidden: Tensor, targets: Tensor, routes: Routes | None = None) -> Tensor:
        """Nothing can be predicted.

        Raises:
            UserError: always.
        """
        raise UserError(
            "this model has no output layer, so it can neither score text nor go on training; "
            "export it with export.head=true"
        )


Head = AdaptiveSoftmax | FullSoftmax | SampledSoftmax | NoHead

TIED_BOUND = 0.1
"""Shared vectors are drawn from U(-0.1, 0.1), as in AWD-LSTM: as logits, wider ones start badly."""


class Losses(NamedTuple):
    """What a window cost.

    means: (directions,) mean -log p in nats over the targets >= 0 (none: 0); activation, change:
    (), mean squares of the top outputs after dropout and of their change from token to token before
    it (Merity et al. 2018, section 4.6), where asked for; state: after the window, part of the graph.
    """

    means: Tensor
    state: Tensor
    activation: Tensor | None = None
    change: Tensor | None = None


class BiLMNetwork(nn.Module):
    """Language models that share input encoder and output layer, one a direction.

    vocabulary: number of ids; cutoffs: where the tails of an adaptive softmax begin, by rank (the
    config's `auto` is resolved by whoever knows the corpus's counts); ranks: int64 (vocabulary of
    the output layer,), id -> rank by count, none: ids are ranks; head: with an output layer.

    Initial weights are drawn in the order input, recurrent stack, output layer, so that
    torch.manual_seed fixes them; what each is drawn from stands in its module. Tied vectors are
    U(-0.1, 0.1).

    Attributes:
        directions: 2, or 1 for a forward language model alone.
        direction_width: dimensions of one direction's output; `width`: of all together.
        output_vocabulary: ids below it can be predicted; others count as the unknown one.
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
        self.directions = config.direction_count
        self.direction_width = config.recurrent.direction_width
        self.width = self.directions * self.direction_width
        self.output_vocabulary = output_vocabulary(config, vocabulary)
        check_cutoffs(cutoffs, self.output_vocabulary)
        div = config.head.div if isinstance(config.head, AdaptiveSoftmaxConfig) else 1.0
        encoder = build_input(config.input, vocabulary, self.direction_width, cutoffs, div, ranks)
        self.input = encoder
        self.recurrent = build_recurrent(config.recurrent, self.directions)
        shared: nn.Parameter | None = None
        if config.tied and isinstance(encoder, TokenEmbedding):
            shared = encoder.embedding.get_parameter("weight")
            nn.init.uniform_(shared, -TIED_BOUND, TIED_BOUND)
        self.head: Head = NoHead()
        if head:
            self.head = _build_head(config, self.output_vocabulary, cutoffs, ranks, shared)
        if config.tied and isinstance(encoder, AdaptiveInput):
            assert isinstance(self.head, AdaptiveSoftmax), "its vectors are the output layer's"
            encoder.tie(self.head)

    def zero_state(self, rows: int) -> Tensor:
        """The state before any text, (layers, directions, rows, state_width), on the weights' device."""
        state: Tensor = self.recurrent.zero_state(rows, next(self.parameters()).device)
        return state

    def layers(
        self, inputs: Tensor | Types, state: Tensor, resets: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The input vectors and every layer's output, and the state after them.

        There are layers + 1 tensors (directions, time, rows, direction_width), float32; inputs and
        resets as in `Window`.
        """
        x = self.input(inputs)  # (directions, time, rows, direction_width)
        run = self.recurrent(x, state, resets)
        return (x, *run.outputs), run.state

    def nll(self, window: Window, state: Tensor) -> tuple[Tensor, Tensor]:
        """-log p of the targets in nats, (directions, time, rows), 0 where a target is < 0; state."""
        run = self.recurrent(self.input(window.inputs), state, window.resets)
        return self.nll_of(run.outputs[-1], window), run.state

    def loss(self, window: Window, state: Tensor, penalties: bool = False) -> Losses:
        """What training minimises, direction by direction, and what may be added to it."""
        run = self.recurrent(self.input(window.inputs), state, window.resets)
        top = run.outputs[-1]  # (directions, time, rows, direction_width)
        predicted = (window.targets >= 0).sum((1, 2)).clamp(min=1)  # (directions,)
        losses = Losses(self.nll_of(top, window).sum((1, 2)) / predicted, run.state)
        if not penalties:
            return losses
        change = run.raw[:, 1:] - run.raw[:, :-1]  # (directions, time - 1, rows, direction_width)
        return losses._replace(
            activation=top.float().square().mean(),
            # The mean; a window of one token has no change.
            change=change.float().square().sum() / max(1, change.numel()),
        )

    def nll_of(self, top: Tensor, window: Window) -> Tensor:
        """-log p of the window's targets after the top outputs (directions, time, rows, width)."""
        flat = top.reshape(-1, self.direction_width)  # (directions * time * rows, direction_width)
        nll: Tensor = self.head.nll(flat, window.targets.reshape(-1), window.routes)
        return nll.view(window.targets.shape)


def output_vocabulary(config: ModelConfig, vocabulary: int) -> int:
    """How many ids can be predicted."""
    return min(config.output_vocabulary or vocabulary, vocabulary)


def _build_head(
    config: ModelConfig,
    vocabulary: int,
    cutoffs: tuple[int, ...],
    ranks: Tensor | None,
    shared: nn.Parameter | None,
) -> Head:
    head, dim = config.head, config.recurrent.direction_width
    if head.kind == "adaptive_softmax":
        return AdaptiveSoftmax(head, dim, vocabulary, cutoffs, ranks)
    if head.kind == "sampled_softmax":
        return SampledSoftmax(head, dim, vocabulary, ranks, shared)
    return FullSoftmax(head, dim, vocabulary, shared)
