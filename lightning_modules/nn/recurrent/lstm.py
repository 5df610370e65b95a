"""The projected LSTM layer for several directions, with clipping.

nn.LSTM has no clipping, so it cannot represent ELMo, and cannot run two directions with independent
inputs as one batched matmul.

In shapes, width is the width of a direction's output and hidden the width of its cell state.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.nn.mode import is_training
from lightning_modules.nn.recurrent import lstm_cell, lstm_inference
from lightning_modules.nn.recurrent.cell import Mode, compile_cell
from lightning_modules.nn.recurrent.graphs import Graphs
from lightning_modules.nn.recurrent.lstm_recurrence import Recurrence, Settings, Weights, run_steps
from lightning_modules.nn.recurrent.matmul import per_direction
from lightning_modules.recurrent_config import LSTMConfig, RecurrentConfig


class LSTMLayer(nn.Module):
    """One projected LSTM layer per direction (Peters et al. 2018, section 3.1).

        i, f, g, o = x W_input + h W_hidden + b                           (gates in the order of nn.LSTM)
        c' = clip(sigmoid(f + forget_bias) c + sigmoid(i) tanh(g))        (to cell_clip)
        h' = clip((sigmoid(o) tanh(c')) W_projection)                     (to projection_clip)

    The gradient of a clipped value is 0. The state is h and c, concatenated, (directions, rows,
    width + hidden). In training, `weight_drop` zeroes entries of W_hidden, with one mask per call
    (Merity et al. 2018, section 2).

    Initialisation: weights are Glorot uniform over a direction's ([x, h], gates) matrix and over its
    projection; biases are 0, except that the forget gate's bias plus forget_bias is 1.
    """

    _forget: Tensor

    def __init__(self, config: RecurrentConfig, directions: int) -> None:
        super().__init__()
        assert isinstance(config, LSTMConfig)
        hidden, width = config.hidden, config.direction_width
        self.config, self.state_width, self.ops = config, width + hidden, lstm_cell.EAGER
        self.graphs: Graphs | None = None
        self._clips = config.cell_clip or math.inf, config.projection_clip or math.inf
        self.weight_input = nn.Parameter(torch.empty(directions, width, 4 * hidden))
        self.weight_hidden = nn.Parameter(torch.empty(directions, width, 4 * hidden))
        self.bias = nn.Parameter(torch.zeros(directions, 4 * hidden))
        self.weight_projection = (
            None
            if config.projection is None
            else nn.Parameter(torch.empty(directions, hidden, width))
        )
        gates = math.sqrt(6 / (2 * width + 4 * hidden))
        nn.init.uniform_(self.weight_input, -gates, gates)
        nn.init.uniform_(self.weight_hidden, -gates, gates)
        self.set_constants()
        nn.init.constant_(self.bias[:, hidden : 2 * hidden], 1 - config.forget_bias)
        if self.weight_projection is not None:
            projection = math.sqrt(6 / (hidden + width))
            nn.init.uniform_(self.weight_projection, -projection, projection)

    def set_constants(self) -> None:
        """Create the buffer that is not saved, on the device of the weights."""
        hidden = self.config.hidden
        forget = self.bias.detach().new_zeros(4 * hidden)  # gates are in the order i, f, g, o
        forget[hidden : 2 * hidden] = self.config.forget_bias
        self.register_buffer("_forget", forget, persistent=False)

    def compile_cell(self, mode: Mode, rows: int) -> str:
        """Compile the cell for the weights' device; return a sentence for the user."""
        self.ops, sentence = compile_cell(
            mode, lstm_cell, self.bias.device, rows, self.config.hidden, self._clips[0]
        )
        return sentence

    def forward(
        self,
        x: Tensor,
        state: Tensor,
        resets: Tensor | None,
        training: bool | None = None,
        tap: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return h' of each step, in the shape of x, and the state after the last step.

        Args:
            x: (directions, time, rows, width).
            state: (directions, rows, width + hidden).
            resets: True where the state is set to zero before the input is read, bool (directions,
                time, rows); None means nowhere.
            training: whether to drop weights; None means the module's mode.
            tap: its gradient is the total gradient of h', as in `Recurrence`; it is not read.
        """
        device, dtype = x.device.type, self.bias.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        x = x.to(dtype)
        parts: tuple[slice, ...] = (slice(None),)
        # Inference has few rows, and their number varies, for which reordered weights are slower.
        if torch.is_grad_enabled() and per_direction(self.weight_hidden, dtype):
            parts = tuple(slice(d, d + 1) for d in range(len(x)))
        settings = Settings(self._clips, self.ops, dtype, parts)
        weights = Weights(
            self.weight_input,
            F.dropout(self.weight_hidden, self.config.weight_drop, is_training(self, training)),
            self.bias + self._forget if self.config.forget_bias else self.bias,
            self.weight_projection,
        )
        keep = None
        if resets is not None:
            # 0 where the state is reset, else 1; (time, directions, rows, 1)
            keep = resets.transpose(0, 1).logical_not().unsqueeze(-1).to(dtype).contiguous()
        if torch.is_grad_enabled():
            apply = Recurrence.apply if self.graphs is None else self.graphs.of(Recurrence)
            outputs, after = apply(x, state, *weights, keep, settings, tap)
            return outputs, after
        with torch.autocast(device, enabled=False):
            weights = settings.cast(weights)
            if lstm_inference.is_for(x, weights, settings):
                outputs, after = lstm_inference.run_joined(x, state, weights, keep, settings)
            else:
                outputs, after, _ = run_steps(x, state, weights, keep, settings, traced=False)
            return outputs.to(self.bias.dtype).contiguous(), after
