"""Temporary files of ended writers are removed, and those of running writers stay."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from preprocess.files import processes, storage
from preprocess.files.errors import StorageError
from preprocess.files.temporary import temporary_file, temporary_folder, temporary_root


def left_by(folder: Path, process: int, began: str, place: str = "") -> Path:
    """Return a new temporary file that a process seems to have left."""
    place = place or processes.this_process().place
    path = folder / "a" / f"{storage.TEMPORARY}{place}-{process}-{began}-0123abcd-b"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


def make_old(path: Path) -> None:
    old = path.stat().st_mtime - processes.SILENCE_SECONDS - 1
    os.utime(path, (old, old))


def test_temporary_files_of_ended_processes_are_removed(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    orphan = left_by(tmp_path, gone.pid, "1")
    (tmp_path / "a" / "b").touch()
    storage.remove_temporary(str(tmp_path))
    assert not orphan.exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_the_temporary_file_of_a_running_writer_stays(tmp_path: Path) -> None:
    me = processes.this_process()
    other = left_by(tmp_path, me.process, me.began)
    make_old(other)
    path = str(tmp_path / "file")
    with storage.atomic_writer(path) as file:
        file.write(b"whole")
        storage.remove_temporary(str(tmp_path))
    assert storage.read_bytes(path) == b"whole"
    assert other.exists()


KILLED = """\
import os, signal, sys
from pathlib import Path
from preprocess.files import storage
Path.unlink = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
storage.check_writable(sys.argv[1])
"""


def test_the_probe_of_a_process_killed_while_it_checks_a_folder_is_removed(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path])
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    storage.remove_temporary(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["0123456789abcdef", "elsewhere"])
def test_the_temporary_file_of_a_writer_elsewhere_is_removed_when_it_is_old(
    tmp_path: Path, place: str
) -> None:
    orphan = left_by(tmp_path, 1, "1", place)
    storage.remove_temporary(str(tmp_path))
    assert orphan.exists()
    make_old(orphan)
    storage.remove_temporary(str(tmp_path))
    assert not orphan.exists()


def test_a_temporary_file_that_cannot_be_removed_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [left_by(tmp_path, 1, "1", place) for place in ("elsewhere", "there")]
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == paths[0]:
            raise PermissionError
        unlink(path, missing_ok)

    for path in paths:
        make_old(path)
    monkeypatch.setattr(Path, "unlink", refuse)
    storage.remove_temporary(str(tmp_path))
    assert [path.exists() for path in paths] == [True, False]


def test_temporary_files_are_removed_from_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    orphan = left_by(tmp_path, 1, "1", "elsewhere")
    make_old(orphan)
    monkeypatch.setattr(Path, "touch", full)
    storage.remove_temporary(str(tmp_path))
    assert not orphan.exists()


ADVICE = "set TMPDIR to a writable folder on a disk with enough space"


def test_a_tmpdir_that_cannot_be_used_is_named_and_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert temporary_root() == str(tmp_path)
    (tmp_path / "file").touch()
    for name, why in (("no", "(No such file or directory)"), ("file", "(Not a directory)")):
        monkeypatch.setenv("TMPDIR", str(tmp_path / name))
        with pytest.raises(StorageError) as error:
            temporary_root()
        assert str(error.value) == f"TMPDIR is {tmp_path / name} {why}; {ADVICE}"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError) as error, temporary_file():
        pass
    assert str(error.value) == f"TMPDIR is {tmp_path}, which cannot be written; {ADVICE}"


def test_a_system_without_a_usable_folder_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", _no_folder)
    with pytest.raises(StorageError) as error, temporary_folder("a"):
        pass
    assert str(error.value) == f"no folder for temporary files can be written; {ADVICE}"


def _no_folder() -> str:
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")


def test_a_full_folder_for_temporary_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    message = f"{tmp_path}: temporary files cannot be written (No space left on device); {ADVICE}"
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StorageError) as error, temporary_file():
        raise full
    assert str(error.value) == message
    with (
        pytest.raises(StorageError) as error,
        temporary_folder("a-") as folder,
        storage.atomic_writer(f"{folder}/b"),
    ):
        raise full
    assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_block_keep_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with (
        pytest.raises(StorageError, match=f"{tmp_path}/result: cannot be written"),
        temporary_folder("a-"),
        storage.atomic_writer(f"{tmp_path}/result"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    # A result may be in TMPDIR, beside the temporary folder.
    result = tmp_path / "temporary/result"
    with (
        pytest.raises(StorageError, match=f"{result}: cannot be written"),
        temporary_folder("a-"),
        storage.atomic_writer(str(result)),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / "input"))
    with pytest.raises(FileNotFoundError), temporary_folder("a-"):
        raise missing
