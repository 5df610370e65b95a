"""A training of a tagger that is killed, and the same command after it."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lightning_modules.tasks.tagging.toys import sentences
from tests.pipeline.commands.tasks.test_tag import SMALL, conll


@pytest.mark.slow
def test_a_killed_finetuning_goes_on_and_gives_the_same_folder(
    trained: Path, tmp_path: Path, biloom: Any
) -> None:
    (tmp_path / "train.conll").write_text(conll(sentences(60, 1)))
    settings = ("train.epochs=8", "train.patience=8", "train.batch=4", "device=cpu", *SMALL)
    tuned = ("baselines=false", "finetune=true")

    def words(out: Path) -> list[str]:
        made = ["tag", "train", f"{tmp_path}/train.conll", "--model", f"{trained}/export"]
        return [*made, "--out", str(out), *settings, *tuned]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = biloom.start(*words(killed))
    # The second training is that of the language model.
    while len(list(killed.glob("_work/*/*/last.ckpt"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (killed / "manifest.json").exists()

    done = biloom.run(*words(killed))
    assert done.returncode == 0, done.stderr
    assert "resuming unfinished work" in done.stdout
    assert biloom.run(*words(whole)).returncode == 0
    contents = [
        json.loads((one / "manifest.json").read_text())["content"] for one in (killed, whole)
    ]
    assert contents[0] == contents[1]
    assert not list(killed.glob("_work/*/*"))
