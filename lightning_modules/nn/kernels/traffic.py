"""The memory traffic of each fused kernel, as the benchmark of a training step counts it.

A fused kernel is one custom operation in the namespace `biloom`. Only its module knows which bytes the
kernel loads and stores, so the module registers a function that computes them from the operation's
arguments:

    @register("biloom::scale")
    def scale_traffic(x: Tensor, factor: float) -> Traffic:
        return Traffic(loads=x.nbytes, stores=x.nbytes)
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar


class Traffic(NamedTuple):
    """Bytes that one call of a kernel moves between memory and the processor.

    Attributes:
        loads: bytes read.
        stores: bytes written.
    """

    loads: int
    stores: int


F = TypeVar("F", bound=Callable[..., Traffic])

TRAFFIC: dict[str, Callable[..., Traffic]] = {}
"""By the name of an operation, "biloom::name", a function of its arguments that returns its traffic."""


def register(name: str) -> Callable[[F], F]:
    """Return a decorator that enters a function into `TRAFFIC`.

    Args:
        name: name of the operation with its namespace.
    """

    def enter(function: F) -> F:
        TRAFFIC[name] = function
        return function

    return enter
