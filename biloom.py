"""The public names of biloom, loaded when they are first used.

from biloom import BiLM, VectorCache
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_modules.pretrained import BiLM as BiLM
    from preprocess.vector_cache import VectorCache as VectorCache

__all__ = ["BiLM", "VectorCache"]

_HOMES = {"BiLM": "lightning_modules.pretrained", "VectorCache": "preprocess.vector_cache"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'biloom' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
