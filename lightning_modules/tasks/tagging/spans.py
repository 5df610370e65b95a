"""Tags of tokens, and the spans that they stand for."""

from typing import Literal, NamedTuple

Scheme = Literal["IO", "IOB1", "IOB2", "IOBES", "BILOU"]


class Span(NamedTuple):
    """A span of tokens.

    Attributes:
        start: its first token.
        end: the token after its last one.
        label: its label.
    """

    start: int
    end: int
    label: str
