"""The public names of biloom.

    from biloom import BiLM, ScalarMix, VectorCache, VectorDataset

A module is imported when one of its names is first used, so `import biloom` does not load torch.
"""

import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from _biloom import foreign_files, main, use_own_packages

if TYPE_CHECKING:
    from lightning_modules.nn.scalar_mix import ScalarMix as ScalarMix
    from lightning_modules.vectors.dataset import VectorDataset as VectorDataset
    from lightning_modules.vectors.pretrained import BiLM as BiLM
    from preprocess.vectors.cache import VectorCache as VectorCache

__all__ = ["BiLM", "ScalarMix", "VectorCache", "VectorDataset"]

_HOMES = {
    "BiLM": "lightning_modules.vectors.pretrained",
    "ScalarMix": "lightning_modules.nn.scalar_mix",
    "VectorCache": "preprocess.vectors.cache",
    "VectorDataset": "lightning_modules.vectors.dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'biloom' has no attribute '{name}'")
    use_own_packages()
    for package, place in foreign_files(sys.path):
        warnings.warn(
            f"{place} has the name of a package of biloom; `import {package}` imports biloom's here",
            stacklevel=2,
        )
    globals()[name] = getattr(import_module(_HOMES[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return __all__


if __name__ == "__main__":
    raise SystemExit(main())
