"""What all tokenizers share: control ids, the `Token` record and the error class."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError

UNKNOWN, BOS, EOS = 0, 1, 2
"""Ids of the control tokens <unk>, <s> and </s>; no text produces BOS or EOS."""

IGNORE = -100
"""Target id of positions that have no target; PyTorch's default ``ignore_index``."""

CONTROLS = ("<unk>", "<s>", "</s>")
"""Spellings of the control tokens, by id."""

Ids = npt.NDArray[np.int32]


class TokenizerError(UserError):
    """A tokenizer that cannot be trained or loaded."""


@dataclass(frozen=True)
class Token:
    """A token of a text: its id, its spelling and the characters [start, end) that it covers."""

    id: int
    spelling: str
    start: int
    end: int
