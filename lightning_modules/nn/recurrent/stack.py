"""The recurrent stack: layers over time, dropout between them, residual connections, one state.

A direction's stack is independent of the other's, as the streams they read are; every operation
takes all directions at once. The cells are in files of their own (lstm, gru).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.config import RecurrentConfig
from lightning_modules.nn.recurrent.cell import Mode
from lightning_modules.nn.recurrent.gru import GRULayer
from lightning_modules.nn.recurrent.lstm import LSTMLayer

LAYERS: dict[str, type[LSTMLayer | GRULayer]] = {"lstm": LSTMLayer, "gru": GRULayer}


class Run(NamedTuple):
    """What a stack makes of a stretch of text.

    outputs: of every layer, (directions, time, rows, width), after the residual, the last after the
    top dropout; raw: the last before that dropout; state: after the last token, (layers,
    directions, rows, state width), part of the graph: whoever truncates the gradient detaches it.
    All float32, whatever precision the matmuls have.
    """

    outputs: tuple[Tensor, ...]
    raw: Tensor
    state: Tensor


class Recurrent(nn.Module):
    """Stacks of layers of one width, one a direction, which read independent streams.

    From the second layer on a layer's input is added to its output, with `residual`; the carried
    state is before that. In training, dropout falls on the input of every layer above the first
    (the first one's is the input encoder's) and on the top output; the residual adds the input as
    dropout left it, as bilm-tf does. `variational`: one mask for all tokens that a row reads (Gal
    and Ghahramani 2016). In eval mode there is none.

    Attributes: config; width, of a direction's input and output.
    """

    def __init__(self, config: RecurrentConfig, directions: int) -> None:
        super().__init__()
        self.config, self.width, self.directions = config, config.direction_width, directions
        layer = LAYERS[config.kind]
        self.layers = nn.ModuleList(layer(config, directions) for _ in range(config.layers))
        top = config.dropout if config.output_dropout is None else config.output_dropout
        self._dropouts = (*[config.dropout] * (config.layers - 1), top)  # of each layer's output

    def zero_state(self, rows: int, device: torch.device | str | None = None) -> Tensor:
        """The state before any text, zeros (layers, directions, rows, state width), float32."""
        width = self.layers[0].state_width
        assert isinstance(width, int)
        return torch.zeros(self.config.layers, self.directions, rows, width, device=device)

    def compile_cell(self, mode: Mode, rows: int = 32) -> str:
        """Compile the pointwise part of a step for the weights' device; says what came of it.

        rows: the number of rows to tune for; any other number runs on the same code. Errors: see
        `lightning_modules.nn.recurrent.cell.compile_cell`.
        """
        sentences = []
        for layer in self.layers:
            assert isinstance(layer, LSTMLayer | GRULayer)
            sentences.append(layer.compile_cell(mode, rows))
        return sentences[0]  # the layers are alike

    def forward(self, x: Tensor, state: Tensor, resets: Tensor | None = None) -> Run:
        """x (directions, time, rows, width), state as `zero_state` -> outputs and the state after.

        resets: bool (directions, time, rows), before which inputs the state is set to zero; none:
        nowhere.
        """
        outputs, after = [], []
        raw = x
        for index, layer in enumerate(self.layers):
            y, carried = layer(x, state[index], resets)  # (directions, time, rows, width)
            after.append(carried)  # (directions, rows, state width)
            raw = y + x if index and self.config.residual else y
            x = self._drop(raw, self._dropouts[index])
            outputs.append(raw)
        outputs[-1] = x
        return Run(tuple(outputs), raw, torch.stack(after))

    def _drop(self, x: Tensor, share: float) -> Tensor:
        if not (self.config.variational and self.training and share):
            return F.dropout(x, share, self.training)
        mask = x.new_empty(x.shape[0], 1, *x.shape[2:]).bernoulli_(1 - share)
        return x * mask.div_(1 - share)
