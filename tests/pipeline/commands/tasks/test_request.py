"""Files that a training cannot read are told before anything is read."""

import re
from pathlib import Path

import pytest

from lightning_modules.tasks.classification.config import ClassifyConfig
from lightning_modules.tasks.folder import Kind
from lightning_modules.tasks.tagging.config import TagConfig
from lightning_modules.tasks.training_config import TaskOptions
from pipeline.commands.tasks.request import RequestError, check_unchanged, request_of
from preprocess.files.manifest import hash_file


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("-", "a training cannot read standard input, .* write the input to a file and name it"),
        (".", r"\.: .*; name a labelled file"),
        ("none.tsv", "none.tsv: No such file or directory; name a labelled file"),
    ],
)
@pytest.mark.parametrize(("kind", "config"), [("classify", ClassifyConfig()), ("tag", TagConfig())])
def test_a_file_that_cannot_be_read(
    kind: Kind, config: TaskOptions, file: str, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        request_of(kind, file, "model", config)


@pytest.mark.parametrize("changed", ["train.tsv", "dev.tsv"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, changed: str) -> None:
    train, dev, file = (tmp_path / name for name in ("train.tsv", "dev.tsv", changed))
    for path in (train, dev):
        path.write_text("a text\n")
    content = hash_file(str(train))[1]
    request = {"train": content, "dev": content}
    config = ClassifyConfig(dev=str(dev))
    check_unchanged(request, str(train), config)
    check_unchanged({**request, "dev": None}, str(train), ClassifyConfig())

    file.write_text("another text\n")
    message = (
        f"{re.escape(str(file))}: this file changed while it was read; run the command again when"
    )
    with pytest.raises(RequestError, match=message):
        check_unchanged(request, str(train), config)
