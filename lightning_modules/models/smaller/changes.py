"""How a smaller model differs from the one that it was made from. Imports no torch."""

from pydantic import Field

from preprocess.section import Section


class Changes(Section):
    """How much smaller each part of a model is; null where it is unchanged.

    Attributes:
        parameters: number of parameters before and after.
        layers: recurrent layers before and after.
        vocabulary: ids before and after.
        unknown_share: share of the training corpus's tokens whose words were dropped; null if the
            corpus is not at hand.
        input_rank: rank of the input matrix, at most, before and after.
        input_error: `LowRank.error` of the input matrix.
    """

    parameters: tuple[int, int]
    layers: tuple[int, int] | None = None
    vocabulary: tuple[int, int] | None = None
    unknown_share: float | None = Field(None, ge=0, le=1)
    input_rank: tuple[int, int] | None = None
    input_error: float | None = None
