"""`--overwrite` on a store that is killed while it moves the old result aside."""

import shutil
import signal
from typing import Any

import pytest

from preprocess.files import storage
from preprocess.files.manifest import check_files, read_manifest
from tests.stored_run import StoredRun

pytestmark = pytest.mark.slow

Proxy, Command, Tiny = Any, Any, Any  # of conftest.py
CONFIG = """\
tokenizer: {kind: word}
prepare: {input: "ROOT/text.txt", tokenizer: "TOKENIZER", unit_bytes: 2048, valid_fraction: 0.1}
runner: {options: {mode: in_memory}}
"""
CHANGED = ("prepare.unit_bytes=1000000", "--overwrite")
COPY, REMOVE = ("PUT", ".old-1/"), ("POST", "delete")
"""Methods and parts of the paths of requests."""


@pytest.fixture(scope="module")
def corpus(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, biloom: Command) -> StoredRun:
    root = tmp_path_factory.mktemp("corpus")
    shutil.copy(tiny.root / "corpus.txt", root / "text.txt")
    text = CONFIG.replace("ROOT", str(root)).replace("TOKENIZER", str(tiny.root / "tokenizer"))
    (root / "run.yaml").write_text(text)
    made = StoredRun(root)
    answer = biloom.run("prepare", *made.arguments(str(root / "disk"), *CHANGED))
    assert (answer.returncode, answer.stderr) == (0, "")
    return made


def has_listed_files_only(folder: str) -> bool:
    """Return True if a result is intact, and its manifest lists every other file in the folder."""
    manifest = read_manifest(folder)
    names = {file.name for file in manifest.all_files} | {"manifest.json"}
    return not check_files(folder, manifest) and {*storage.list_names(folder)} == names


@pytest.mark.parametrize(("requests", "number"), [(COPY, 4), (REMOVE, 1), (REMOVE, 2)])
def test_the_same_command_leaves_no_file_of_the_old_result(
    requests: tuple[str, str],
    number: int,
    corpus: StoredRun,
    proxy: Proxy,
    far: str,
    biloom: Command,
) -> None:
    output = f"{far}/{requests[0]}-{number}"
    assert biloom.run("prepare", *corpus.arguments(output)).returncode == 0
    old = read_manifest(f"{output}/prepare")
    seen = []

    def kill(_: int, method: str, path: str) -> str:
        if method != requests[0] or requests[1] not in path:
            return ""
        seen.append(path)
        if len(seen) < number:
            return ""
        driver.send_signal(signal.SIGKILL)
        return "cut request"

    proxy.fault = kill
    driver = biloom.start("prepare", *corpus.arguments(output, *CHANGED))
    driver.communicate(timeout=300)
    assert driver.returncode == -signal.SIGKILL
    proxy.pass_on()

    answer = biloom.run("prepare", *corpus.arguments(output, *CHANGED))
    assert (answer.returncode, answer.stderr) == (0, "")
    folders = storage.list_folders(output)
    assert folders == ["prepare", "prepare.old-1"]
    assert all(has_listed_files_only(f"{output}/{folder}") for folder in folders)
    assert read_manifest(f"{output}/prepare.old-1").content == old.content
    disk = read_manifest(str(corpus.root / "disk" / "prepare"))
    assert read_manifest(f"{output}/prepare").files == disk.files
