"""What all kinds of tokenizer share: control ids, tokens with their places, and how one is saved."""

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError
from preprocess.files.storage import join, write_bytes

UNKNOWN, BOS, EOS = 0, 1, 2
CONTROLS = ("<unk>", "<s>", "</s>")

KIND_FILE = "tokenizer.json"

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


def save_kind(folder: str, kind: str, **files: str) -> tuple[str, ...]:
    """Write which kind of tokenizer ``folder`` holds and in which files; returns all names."""
    write_bytes(join(folder, KIND_FILE), json.dumps({"kind": kind, **files}).encode())
    return (KIND_FILE, *files.values())
