"""What all kinds of tokenizer share: control ids, tokens with their places, and their errors."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError

UNKNOWN, BOS, EOS = 0, 1, 2
IGNORE = -100
"""In place of a target id: nothing is predicted there. PyTorch's default ``ignore_index``."""

CONTROLS = ("<unk>", "<s>", "</s>")

Ids = npt.NDArray[np.int32]


class TokenizerError(UserError):
    """Text no tokenizer can be made from, a model that is none, or a folder without one."""


@dataclass(frozen=True)
class Token:
    """A token of a text: its id, its spelling, and the characters [start, end) it covers."""

    id: int
    spelling: str
    start: int
    end: int
