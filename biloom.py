"""The public names of biloom.

    from biloom import BiLM, ScalarMix, VectorCache, VectorDataset
    from biloom import LitBiLM, ModelConfig, TokenShardDataModule, TrainConfig

A module is imported when one of its names is first used, so `import biloom` does not load torch.
"""

import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from _biloom import foreign_files, main, use_own_packages

if TYPE_CHECKING:
    from lightning_modules.config import ModelConfig as ModelConfig
    from lightning_modules.integrations.scikit_learn import BiLMTransformer as BiLMTransformer
    from lightning_modules.nn.scalar_mix import ScalarMix as ScalarMix
    from lightning_modules.portable.program import export_program as export_program
    from lightning_modules.training.config import TrainConfig as TrainConfig
    from lightning_modules.training.datamodule import TokenShardDataModule as TokenShardDataModule
    from lightning_modules.training.distillation.lit_student import LitStudent as LitStudent
    from lightning_modules.training.lit_bilm import LitBiLM as LitBiLM
    from lightning_modules.vectors.dataset import VectorDataset as VectorDataset
    from lightning_modules.vectors.embedder import BiLMEmbedder as BiLMEmbedder
    from lightning_modules.vectors.pretrained import BiLM as BiLM
    from preprocess.vectors.cache import VectorCache as VectorCache

_HOMES = {
    "BiLM": "lightning_modules.vectors.pretrained",
    "BiLMEmbedder": "lightning_modules.vectors.embedder",
    "BiLMTransformer": "lightning_modules.integrations.scikit_learn",
    "LitBiLM": "lightning_modules.training.lit_bilm",
    "LitStudent": "lightning_modules.training.distillation.lit_student",
    "ModelConfig": "lightning_modules.config",
    "ScalarMix": "lightning_modules.nn.scalar_mix",
    "TokenShardDataModule": "lightning_modules.training.datamodule",
    "TrainConfig": "lightning_modules.training.config",
    "VectorCache": "preprocess.vectors.cache",
    "VectorDataset": "lightning_modules.vectors.dataset",
    "export_program": "lightning_modules.portable.program",
}

__all__ = [
    "BiLM",
    "BiLMEmbedder",
    "BiLMTransformer",
    "LitBiLM",
    "LitStudent",
    "ModelConfig",
    "ScalarMix",
    "TokenShardDataModule",
    "TrainConfig",
    "VectorCache",
    "VectorDataset",
    "export_program",
]


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
