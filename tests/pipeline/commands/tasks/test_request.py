"""Files that a training cannot read are told before anything is read."""

import pytest

from lightning_modules.tasks.classification.config import ClassifyConfig
from lightning_modules.tasks.folder import Kind
from lightning_modules.tasks.tagging.config import TagConfig
from lightning_modules.tasks.training_config import TaskOptions
from pipeline.commands.tasks.request import RequestError, request_of


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
