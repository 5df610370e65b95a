"""The next command ends the move of an old result on a store that a killed command began."""

from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from rich.console import Console as RichConsole

from pipeline.config.load import load_config
from pipeline.console import Console
from pipeline.lifecycle.running import run_stage
from pipeline.lifecycle.stage import Made, Stage, StageFolder, StageWork
from pipeline.lifecycle.task_folder import make_task
from preprocess.files import storage
from preprocess.files.manifest import Manifest, record_of, write_manifest
from preprocess.work import aside

ROOT = "memory://killed-moves"
STAGE, TASK = f"{ROOT}/fake", f"{ROOT}/task"


@pytest.fixture(autouse=True)
def _empty_store() -> Iterator[None]:
    yield
    storage.remove_tree(ROOT)


def run(seed: int, console: Console) -> None:
    """Run a stage that writes a file with the seed in its name."""

    def make(_: Any, place: StageFolder, __: Console) -> Made:
        storage.write_bytes(place.new_file(f"data-{seed}"), b"made")
        return Made((place.record(f"data-{seed}"),), {})

    keys = ("prepare.input=x", f"run.output={ROOT}", "runner.options.mode=in_memory")
    config = load_config([], [*keys])
    stage = Stage("fake", 1, lambda _: {"seed": seed})
    run_stage(stage, lambda: StageWork(make), config, console, overwrite=True)


def make(seed: int, console: Console) -> None:
    """Make a task that writes a file with the seed in its name."""
    asked = {"stage": "classify train", "seed": seed}

    def work(_: str) -> Manifest:
        storage.write_bytes(f"{TASK}/data-{seed}", b"made")
        files = (record_of(f"data-{seed}", b"made"),)
        manifest = Manifest("classify train", 1, "1.0", "", "", asked, files, {})
        write_manifest(TASK, manifest)
        return manifest

    make_task(TASK, asked, work, console, overwrite=True)


@pytest.mark.parametrize(("folder", "command"), [(STAGE, run), (TASK, make)])
@pytest.mark.parametrize(
    ("killed", "calls", "told"),
    [
        (
            "copy_objects",
            1,
            "removed the incomplete copy of this result that a killed process left",
        ),
        (
            "remove_objects",
            1,
            "moved the rest of the old result, which a killed process left, to FOLDER.old-1",
        ),
        (
            "remove",
            0,
            "moved the rest of the old result, which a killed process left, to FOLDER.old-1",
        ),
    ],
)
def test_the_next_command_leaves_no_file_of_the_old_result(
    killed: str,
    calls: int,
    told: str,
    folder: str,
    command: Callable[[int, Console], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed = StringIO()
    console = Console(RichConsole(file=printed, width=1000, highlight=False))
    command(1, console)
    old = storage.list_names(folder)
    with monkeypatch.context() as patch:
        change, left = getattr(aside, killed), [calls]

        def dying(*arguments: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            change(*arguments)

        patch.setattr(aside, killed, dying)
        with pytest.raises(KeyboardInterrupt):
            command(2, console)
    command(2, console)
    assert told.replace("FOLDER", folder) in printed.getvalue()
    names = storage.list_names(folder)
    assert names == [name.replace("data-1", "data-2") for name in old]
    assert storage.list_names(f"{folder}.old-1") == old
    assert not storage.exists(f"{folder}.old-2")
    command(2, console)
    assert printed.getvalue().count("killed process left") == 1
