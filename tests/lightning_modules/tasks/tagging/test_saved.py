"""A tagger in the files of a task folder."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from lightning_modules.tasks.folder import ModelReference
from lightning_modules.tasks.stored_task import Task
from lightning_modules.tasks.tagging.config import TagConfig, TaggerConfig
from lightning_modules.tasks.tagging.saved import SavedTagger, from_task, to_config
from lightning_modules.tasks.tagging.trained import TrainedTagger
from lightning_modules.tasks.tagging.training import Sentences
from lightning_modules.tasks.tuning import PREFIX
from preprocess.files.manifest import Manifest
from preprocess.files.verified import DamagedResult

SETTINGS = TagConfig(tags="4")


@pytest.fixture
def task(tagger: TrainedTagger, dev: Sentences) -> Task[SavedTagger]:
    made = to_config(tagger, dev.vectors, "script", dev.examples, SETTINGS)  # type: ignore[arg-type]
    config = SavedTagger.model_validate(json.loads(json.dumps(made)))
    manifest = Manifest("tag train", 1, "", "", "", {}, (), {})
    tags = tagger.parts.tags.tags
    tensors = dict(tagger.tensors())
    return Task(
        "folder", manifest, "tag", config, tags, tensors, {}, ModelReference("c"), bundled=False
    )


def test_a_saved_tagger_predicts_the_same(
    task: Task[SavedTagger], tagger: TrainedTagger, dev: Sentences
) -> None:
    read = from_task(task)
    assert (read.join, read.depth, read.dim) == ("script", 3, 4)
    assert read.read == SETTINGS.reading.model_copy(update={"split": "words"})
    assert read.tagger.parts == tagger.parts
    expected = tagger.predict(dev.tokens, dev.vectors)
    assert dev.vectors is not None
    assert read.predict(dev.tokens, dev.vectors) == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dim": 5}, r"head\.safetensors is damaged \('lstm\.weight_ih_l0' is float32 \(32, "),
        ({"words": ()}, r"head\.safetensors is damaged \('words\.weight' is float32 \("),
        ({"scheme": "IOB2"}, "holds files that do not fit each other"),
        ({"network": TaggerConfig(hidden=10**7)}, r"head\.safetensors is damaged \("),
        ({"network": TaggerConfig(hidden=10**12)}, "files that do not fit each other"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    task: Task[SavedTagger], change: Any, reason: str
) -> None:
    changed = replace(task, config=task.config.model_copy(update=change))
    with pytest.raises(DamagedResult, match=reason) as caught:
        from_task(changed)
    assert "biloom tag train --overwrite" in str(caught.value)


def test_labels_and_tensors_that_do_not_fit_are_refused(task: Task[SavedTagger]) -> None:
    with pytest.raises(DamagedResult, match="must be float32"):
        from_task(replace(task, labels=task.labels[:-1]))
    for name in ("more", f"{PREFIX}more"):
        with pytest.raises(DamagedResult, match=f"unknown tensor '{name}'"):
            from_task(replace(task, tensors={**task.tensors, name: torch.zeros(1)}))
