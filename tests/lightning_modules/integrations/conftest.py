"""A model folder for tests that may run where Beam and Lightning are not installed."""

from pathlib import Path

import pytest
import torch

TEXT = "kana lori,\n\nmi'na  kana"


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained model that reads pieces of words."""
    from lightning_modules.config import ModelConfig
    from lightning_modules.models.model_folder import save_model
    from lightning_modules.nn.bilm import BiLMNetwork
    from preprocess.config import SentencePieceConfig
    from preprocess.files.manifest import (
        FileRecord,
        Manifest,
        content_hash,
        hash_file,
        write_manifest,
    )
    from preprocess.text.config import CleaningConfig
    from preprocess.tokenizers.load import train_tokenizer

    path = tmp_path_factory.mktemp("pieces")
    torch.manual_seed(3)
    tokenizer = train_tokenizer(SentencePieceConfig(vocabulary=300), [TEXT] * 9)
    recurrent = {"kind": "lstm", "hidden": 12, "projection": 6, "layers": 1}
    config = ModelConfig.model_validate({"recurrent": recurrent})
    network = BiLMNetwork(config, tokenizer.vocabulary)
    settings = {
        "model": config.model_dump(mode="json"), "vocabulary": tokenizer.vocabulary, "cutoffs": [],
        "boundary": "eos", "cleaning": CleaningConfig().model_dump(mode="json"),
    }  # fmt: skip
    names = save_model(str(path), network.state_dict(), settings, tokenizer)
    files = tuple(FileRecord(name, *hash_file(str(path / name))) for name in names)
    content = content_hash(files)
    write_manifest(str(path), Manifest("export", 1, "0", "", content, {}, files, {}))
    return path
