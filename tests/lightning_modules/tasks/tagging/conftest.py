"""A tagger of the toy task, trained once."""

from pathlib import Path

import pytest

from lightning_modules.tasks.tagging.trained import TaggerParts, TrainedTagger
from lightning_modules.tasks.tagging.training import Sentences, train_tagger
from tests.lightning_modules.tasks.tagging.toys import FIT, parts_of, sentences, with_features


@pytest.fixture(scope="session")
def train() -> Sentences:
    return with_features(sentences(40, 1))


@pytest.fixture(scope="session")
def dev() -> Sentences:
    return with_features(sentences(12, 2))


@pytest.fixture(scope="session")
def parts(train: Sentences) -> TaggerParts:
    return parts_of(train.examples)


@pytest.fixture(scope="session")
def tagger(
    parts: TaggerParts, train: Sentences, dev: Sentences, tmp_path_factory: pytest.TempPathFactory
) -> TrainedTagger:
    folder: Path = tmp_path_factory.mktemp("tagger")
    return train_tagger(parts, train, dev, FIT, folder, seed=3, device="cpu")
