"""The bidirectional language model: input encoder, recurrent stack, output layer.

Both directions share the input encoder and the output layer, as in ELMo (Peters et al. 2018,
section 3.1); their stacks are independent, and so are the streams of text they read in training.
"""

from torch import Tensor, nn

from lightning_modules.config import HeadConfig, ModelConfig
from lightning_modules.nn.adaptive_softmax import AdaptiveSoftmax, Routes
from lightning_modules.nn.inputs import build_input
from lightning_modules.nn.recurrent import BiLSTM, State
from lightning_modules.nn.softmax import FullSoftmax

HEADS = {"adaptive_softmax": AdaptiveSoftmax, "softmax": FullSoftmax}


def build_head(
    config: HeadConfig, dim: int, vocabulary: int, cutoffs: tuple[int, ...], ranks: Tensor | None
) -> AdaptiveSoftmax | FullSoftmax:
    """The output layer that `config.kind` names."""
    head: AdaptiveSoftmax | FullSoftmax = HEADS[config.kind](
        config, dim, vocabulary, cutoffs, ranks
    )
    return head


class BiLMNetwork(nn.Module):
    """Two language models, one a direction, in one network.

    vocabulary: number of ids; cutoffs: where the tails of an adaptive softmax begin, by rank (the
    config's `auto` is resolved by whoever knows the corpus's counts); ranks: int64 (vocabulary,),
    id -> rank.

    Initial weights, drawn in this order, so that torch.manual_seed fixes them:

        input.embedding   U(-1, 1)
        input.linear      Glorot uniform, bias 0            (only where dim differs from the width)
        recurrent weights Glorot uniform over ([x, h], gates) and over the projection
        recurrent biases  0, forget gate 1
        head              U(-1/sqrt(columns), 1/sqrt(columns)); the full softmax's bias 0

    Attributes: direction_width, dimensions of one direction's output; width, of both together.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: int,
        cutoffs: tuple[int, ...] = (),
        ranks: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.direction_width = config.recurrent.direction_width
        self.width = 2 * self.direction_width
        self.input = build_input(config.input, vocabulary, self.direction_width)
        self.recurrent = BiLSTM(config.recurrent, self.direction_width)
        self.head = build_head(config.head, self.direction_width, vocabulary, cutoffs, ranks)

    def zero_state(self, rows: int) -> State:
        """The state before any text, on the device of the weights."""
        return self.recurrent.zero_state(rows, next(self.parameters()).device)

    def layers(self, ids: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        """Ids (2, time, rows), int64 -> the input vectors and every layer's output, and the state.

        There are layers + 1 tensors (2, time, rows, direction_width), float32.
        """
        x = self.input(ids)  # (2, time, rows, direction_width)
        outputs, state = self.recurrent(x, state)
        return (x, *outputs), state

    def nll(
        self, ids: Tensor, targets: Tensor, state: State, routes: Routes | None = None
    ) -> tuple[Tensor, State]:
        """-log p of targets (2, time, rows) in nats, of the same shape; 0 where a target is < 0.

        routes: of targets.reshape(-1), see `lightning_modules.nn.adaptive_softmax.route`.
        """
        outputs, state = self.layers(ids, state)
        top = outputs[-1].reshape(-1, self.direction_width)  # (2 * time * rows, direction_width)
        return self.head.nll(top, targets.reshape(-1), routes).view(targets.shape), state

    def loss(
        self, ids: Tensor, targets: Tensor, state: State, routes: Routes | None = None
    ) -> tuple[Tensor, State]:
        """Mean -log p of each direction, (2,), nats, over targets >= 0 (none: 0), and the state."""
        nll, state = self.nll(ids, targets, state, routes)
        predicted = (targets >= 0).sum((1, 2)).clamp(min=1)  # (2,)
        return nll.sum((1, 2)) / predicted, state
