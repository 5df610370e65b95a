"""The recurrent stack: layers with dropout between them and residual connections.

The directions' stacks are independent, but each operation computes all directions at once. To add a
layer, write a config with a `kind`, a module in this package and a case in `_build_layer`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.nn.mode import is_training
from lightning_modules.nn.recurrent import graphs
from lightning_modules.nn.recurrent.cell import Mode
from lightning_modules.nn.recurrent.gru import GRULayer
from lightning_modules.nn.recurrent.hgrn2.layer import HGRN2Layer
from lightning_modules.nn.recurrent.lstm import LSTMLayer
from lightning_modules.nn.recurrent.sru import SRULayer
from lightning_modules.recurrent_config import (
    GRUConfig,
    HGRN2Config,
    NoRecurrenceConfig,
    RecurrentConfig,
    SRUConfig,
)

Layer = LSTMLayer | GRULayer | HGRN2Layer | SRULayer


class Run(NamedTuple):
    """Result of a stack, all float32, also under autocast.

    Attributes:
        outputs: output of each layer after the residual connection, (directions, time, rows, width).
            Only the last one is after dropout. Empty without layers.
        raw: output of the last layer before dropout, (directions, time, rows, width). The input without
            layers.
        state: state after the last token, (layers, directions, rows, state_width). It is part of the
            autograd graph; detach it to truncate backpropagation.
    """

    outputs: tuple[Tensor, ...]
    raw: Tensor
    state: Tensor

    @property
    def top(self) -> Tensor:
        """Output of the last layer, or the input without layers, (directions, time, rows, width)."""
        return self.outputs[-1] if self.outputs else self.raw


class Recurrent(nn.Module):
    """A stack of recurrent layers per direction; each layer's input and output have the same width.

    With `residual`, each layer except the first adds its input to its output. The input is added as
    the layer sees it, after dropout, as in bilm-tf. The state does not include the residual. In
    training, dropout is applied to each layer's output; the input of the first layer already has the
    dropout of the input encoder. With `variational`, all tokens of a row share one dropout mask (Gal
    and Ghahramani 2016).

    Args:
        config: the layers.
        directions: 1 or 2.

    Attributes:
        width: width of a direction's input and output.
    """

    def __init__(self, config: RecurrentConfig, directions: int) -> None:
        super().__init__()
        self.config, self.width, self.directions = config, config.direction_width, directions
        self.layers = nn.ModuleList(
            _build_layer(config, directions, index) for index in range(config.layers)
        )
        self._dropouts: tuple[float, ...] = ()  # of each layer's output
        if not isinstance(config, NoRecurrenceConfig):
            top = config.dropout if config.output_dropout is None else config.output_dropout
            self._dropouts = (*[config.dropout] * (config.layers - 1), top)

    def zero_state(self, rows: int, device: torch.device | str | None = None) -> Tensor:
        """Return the initial state, zeros (layers, directions, rows, state_width), float32.

        state_width is width + hidden for an LSTM, hidden for a GRU and an SRU, and hidden * expansion for
        HGRN2. Without layers, it is 0.
        """
        width = self.layers[0].state_width if len(self.layers) else 0
        assert isinstance(width, int)
        return torch.zeros(
            self.config.layers, self.directions, rows, width, dtype=torch.float32, device=device
        )

    def compile_cell(self, mode: Mode, rows: int = 32) -> str:
        """Compile the pointwise part of a step for the weights' device.

        Args:
            mode: as in `lightning_modules.nn.recurrent.cell.compile_cell`.
            rows: number of rows to tune for; other numbers run the same code.

        Returns:
            A sentence for the user that says whether it is compiled and, if not, why.

        Raises:
            UserError: mode is "on", and the compiler is missing or fails.
        """
        sentences = []
        for layer in self.layers:
            assert isinstance(layer, Layer)
            sentences.append(layer.compile_cell(mode, rows))
        # The layers are alike.
        return sentences[0] if sentences else "the model has no recurrent layers to compile"

    def use_graphs(self, time: int, rows: int) -> None:
        """Let CUDA graphs run windows of one size that need gradients, if the device has them.

        The outputs of such a window are valid until the next one.

        Args:
            time: tokens per row.
            rows: number of rows.
        """
        is_possible = graphs.are_supported(next(self.parameters()).device)
        made = graphs.Graphs(time, rows, graphs.capture_on_gpu) if is_possible else None
        self._set_graphs(made)

    def drop_graphs(self) -> None:
        """Free the graphs of `use_graphs` and their memory."""
        self._set_graphs(None)

    def _set_graphs(self, made: graphs.Graphs | None) -> None:
        for layer in self.layers:
            assert isinstance(layer, Layer)
            layer.graphs = made

    def forward(
        self,
        x: Tensor,
        state: Tensor,
        resets: Tensor | None = None,
        training: bool | None = None,
        taps: Sequence[Tensor] | None = None,
    ) -> Run:
        """Run all layers over a window.

        Args:
            x: (directions, time, rows, width).
            state: as in `zero_state`.
            resets: True where the state is set to zero before the input is read, bool (directions,
                time, rows); None means nowhere.
            training: whether to apply dropout; None means the module's mode.
            taps: a tensor of the shape of x per layer, whose gradient is the total gradient of the
                layer's output, see `lightning_modules.nn.recurrent.lstm_recurrence.Recurrence`. The
                values are not read.
        """
        if isinstance(self.config, NoRecurrenceConfig):
            return Run((), x, state)
        training = is_training(self, training)
        outputs, after = [], []
        raw = x
        for index, layer in enumerate(self.layers):
            tap = () if taps is None else (taps[index],)
            # y is (directions, time, rows, width)
            y, carried = layer(x, state[index], resets, training, *tap)
            after.append(carried)  # (directions, rows, state width)
            raw = y + x if index and self.config.residual else y
            x = self._drop(raw, self._dropouts[index], training)
            outputs.append(raw)
        outputs[-1] = x
        return Run(tuple(outputs), raw, torch.stack(after))

    def _drop(self, x: Tensor, p: float, training: bool) -> Tensor:
        assert not isinstance(self.config, NoRecurrenceConfig)
        if not (self.config.variational and training and p):
            return F.dropout(x, p, training)
        mask = x.new_empty(x.shape[0], 1, *x.shape[2:]).bernoulli_(1 - p)
        return x * mask.div_(1 - p)


def _build_layer(config: RecurrentConfig, directions: int, index: int) -> Layer:
    assert not isinstance(config, NoRecurrenceConfig)
    if isinstance(config, GRUConfig):
        return GRULayer(config, directions)
    if isinstance(config, HGRN2Config):
        return HGRN2Layer(config, directions, bound=index / config.layers)
    if isinstance(config, SRUConfig):
        return SRULayer(config, directions)
    return LSTMLayer(config, directions)
