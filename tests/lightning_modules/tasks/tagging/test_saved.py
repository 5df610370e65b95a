"""A tagger in the files of a task folder."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from lightning_modules.tasks.folder import ModelReference, Task, TaskError
from lightning_modules.tasks.tagging.saved import from_task, to_config
from lightning_modules.tasks.tagging.trained import TrainedTagger
from lightning_modules.tasks.tagging.training import Sentences
from preprocess.files.manifest import Manifest
from preprocess.reading.labelled.options import TaggedOptions

READ = TaggedOptions(tags="4")


@pytest.fixture
def task(tagger: TrainedTagger, dev: Sentences) -> Task:
    config: dict[str, Any] = to_config(tagger, dev.vectors, "script", READ, dev.examples)  # type: ignore[arg-type]
    manifest = Manifest("tag train", 1, "", "", "", {}, (), {})
    tags = tagger.parts.tags.tags
    tensors = dict(tagger.tensors())
    return Task(
        "folder", manifest, "tag", config, tags, tensors, {}, ModelReference("c"), bundled=False
    )


def test_a_saved_tagger_predicts_the_same(
    task: Task, tagger: TrainedTagger, dev: Sentences
) -> None:
    read = from_task(task)
    assert (read.join, read.depth, read.dim) == ("script", 3, 4)
    assert read.read == READ.model_copy(update={"split": "words"})
    assert read.tagger.parts == tagger.parts
    expected = tagger.predict(dev.tokens, dev.vectors)
    assert dev.vectors is not None
    assert read.predict(dev.tokens, dev.vectors) == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dim": 5}, "size mismatch|do not fit"),
        ({"words": []}, "do not fit"),
        ({"join": "glue"}, "join"),
        ({"scheme": "IOB2"}, "do not fit"),
        ({"network": {"hiden": 3}}, "network.hiden"),
    ],
)
def test_files_that_do_not_fit_are_refused(task: Task, change: Any, reason: str) -> None:
    changed = replace(task, config={**task.config, **change})
    with pytest.raises(TaskError, match=reason) as caught:
        from_task(changed)
    assert "biloom tag train --overwrite" in str(caught.value)


def test_labels_and_tensors_that_do_not_fit_are_refused(task: Task) -> None:
    with pytest.raises(TaskError, match="do not fit each other"):
        from_task(replace(task, labels=task.labels[:-1]))
    with pytest.raises(TaskError, match="do not fit each other"):
        from_task(replace(task, tensors={**task.tensors, "more": torch.zeros(1)}))
