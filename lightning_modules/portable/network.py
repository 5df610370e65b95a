"""The networks that are exported: one for whole texts, one for text that arrives in parts.

Both share the weights of an input encoder and of the recurrent layers; the output layer is left out. A
direction reads the boundary token of training before a text, as in `BiLM`. Its vector is a constant here.

Shapes: depth is the number of layers including layer 0, width that of one direction, dim that of a
vector (the forward half, then the backward half).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.portable.errors import PortableError
from lightning_modules.portable.inputs import IdInput, SpelledInput
from lightning_modules.portable.recurrence import steps_of
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.streams import mirror_of


class _Directions(nn.Module):
    """The input encoder, the vectors of the boundary tokens and the layers of some directions.

    Args:
        model: the model.
        directions: number of directions, 1 for the forward one only.
    """

    boundary: Tensor

    def __init__(self, model: BiLM, directions: int) -> None:
        super().__init__()
        network, self.depth = model.network, model.depth
        marks = torch.tensor(model.starts[:directions], device=network.zero_state(1).device)
        with torch.no_grad():
            read = model.encoder.inputs(marks[:, None, None])
            # (directions, 1, 1, width)
            vectors = network.input(read, training=False)
        self.register_buffer("boundary", vectors[:, 0, 0].clone())  # (directions, width)
        self.width = network.direction_width
        self.input: nn.Module = IdInput(network)
        if isinstance(network.input, CharCNN):
            self.input = SpelledInput(network.input)
        config = network.recurrent.config
        self.residual = config.residual
        steps = [
            [steps_of(layer, config.kind, one) for layer in network.recurrent.layers]
            for one in range(directions)
        ]
        self.layers = nn.ModuleList(map(nn.ModuleList, steps))
        self.state_width = sum(steps[0][0].widths) if steps[0] else 0

    def read(self, ids: Tensor, characters: Tensor | None) -> Tensor:
        """Return the vectors of layer 0, (batch, time, width)."""
        if characters is None:
            vectors: Tensor = self.input(ids)
            return vectors
        return F.embedding(ids, self.input(characters))

    def run(
        self, direction: int, x: Tensor, state: list[Tensor], present: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return each layer's output, layer 0 first, and each recurrent layer's state after the last step.

        Args:
            direction: 0 or 1.
            x: the vectors of layer 0 in the order in which they are read, (time, batch, width).
            state: the state before, for each layer (batch, state width).
            present: as in `Steps.forward`.
        """
        outputs, after = [x], []
        layers = self.layers[direction]
        assert isinstance(layers, nn.ModuleList)
        for index, layer in enumerate(layers):
            y, carried = layer(x, state[index], present)
            x = y + x if index and self.residual else y
            outputs.append(x)
            after.append(carried)
        return outputs, after


class TextNetwork(nn.Module):
    """All layers of whole texts, as `BiLM.forward` computes them.

    Args:
        model: the model. Its weights are shared or copied as they are now.

    Raises:
        PortableError: the model's layers cannot be exported.
    """

    def __init__(self, model: BiLM) -> None:
        super().__init__()
        self.parts = _Directions(model, model.network.directions)

    def forward(self, ids: Tensor, lengths: Tensor, characters: Tensor | None = None) -> Tensor:
        """Return the vectors of all layers.

        Args:
            ids: token ids, int64 (batch, time), padded at the end with any id. With ``characters``, ids
                are its rows.
            lengths: number of tokens of each text, int64 (batch,).
            characters: character ids of each distinct word, int64 (words, columns), for a model that
                reads words by their spelling.

        Returns:
            (depth, batch, time, dim). Positions past a text's length are undefined.
        """
        parts, (batch, time) = self.parts, ids.shape
        vectors = parts.read(ids, characters)
        mirror = mirror_of(lengths, time)
        found = []
        for direction in range(len(parts.layers)):
            x = vectors
            if direction:
                x = vectors.gather(1, mirror[:, :, None].expand(-1, -1, parts.width))
            first = parts.boundary[direction].expand(1, batch, -1)
            x = torch.cat([first, x.transpose(0, 1)])  # (time + 1, batch, width)
            zero = x.new_zeros(batch, parts.state_width)
            outputs, _ = parts.run(direction, x, [zero] * (parts.depth - 1))
            read = torch.stack(outputs)[:, 1:].transpose(1, 2)  # (depth, batch, time, width)
            if direction:
                read = read.gather(2, mirror[None, :, :, None].expand_as(read))
            found.append(read)
        return torch.cat(found, 3)


class StreamNetwork(nn.Module):
    """All layers of the forward direction, for texts that are read in parts.

    The state after one part is an input of the next. The backward direction reads a text from its end,
    so it needs the whole text: `TextNetwork`.

    Args:
        model: as in `TextNetwork`.

    Raises:
        PortableError: the model's layers cannot be exported, or it has none, so that nothing depends on the
            part before.
    """

    initial: Tensor

    def __init__(self, model: BiLM) -> None:
        super().__init__()
        if model.depth == 1:
            raise PortableError(
                "the model has no recurrent layers, so a text in parts has the vectors of the whole text; "
                "use model.onnx, and leave --stream out"
            )
        self.parts = _Directions(model, 1)
        network = model.network
        directions = network.directions
        with torch.no_grad():
            first = self.parts.boundary.expand(directions, 1, 1, -1).contiguous()
            state = network.recurrent(first, network.zero_state(1), training=False).state
        # (recurrent layers, 1, state_width)
        self.register_buffer("initial", state[:, 0].to(self.parts.boundary.dtype))

    def forward(
        self,
        ids: Tensor,
        lengths: Tensor,
        begins: Tensor,
        state: Tensor,
        characters: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the vectors of all layers, and the state after the part.

        Args:
            ids: as in `TextNetwork.forward`, of a part of each text.
            lengths: number of tokens of each part, int64 (batch,).
            begins: True if the part is the first of its text; its state is not read. bool (batch,).
            state: state after the part before, (recurrent layers, batch, state_width), in the dtype of the
                weights.
            characters: as in `TextNetwork.forward`.

        Returns:
            (depth, batch, time, width), and the state. Positions past a part's length are undefined.
        """
        parts, time = self.parts, ids.shape[1]
        x = parts.read(ids, characters).transpose(0, 1)  # (time, batch, width)
        before = torch.where(begins[None, :, None], self.initial, state)
        steps = torch.arange(time, device=ids.device)[:, None]
        present = (steps < lengths[None]).unsqueeze(2)  # (time, batch, 1)
        outputs, after = parts.run(0, x, [*before.unbind(0)], present)
        return torch.stack(outputs).transpose(1, 2), torch.stack(after)
