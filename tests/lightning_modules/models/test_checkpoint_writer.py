"""A checkpoint is written beside the training: what it holds, how many there are, and how it fails."""

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.models import checkpoint_writer
from lightning_modules.models.checkpoint_file import read_checkpoint
from lightning_modules.models.checkpoint_writer import CheckpointWriter, Snapshot, write_checkpoint
from preprocess.files import storage
from preprocess.files.errors import StoreError


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An event that the disk waits for before a file is complete."""
    event = threading.Event()

    def sync(*_: Any) -> None:
        assert event.wait(20)

    monkeypatch.setattr("preprocess.files.storage.sync_data", sync)
    yield event
    event.set()


def test_a_file_holds_what_was_there_when_its_write_began(
    tmp_path: Path, released: threading.Event
) -> None:
    weight = torch.arange(6.0)
    checkpoint = {"step": 3, "weights": {"a": weight, "tied": weight, "row": weight[2:4]}}
    write, path, other = CheckpointWriter(), f"{tmp_path}/a.ckpt", f"{tmp_path}/b.ckpt"
    order: list[Any] = []
    write.write(
        path,
        checkpoint,
        lambda: order.append(("before", storage.exists(path), threading.current_thread().name)),
        lambda: order.append(("after", storage.exists(path))),
    )
    weight += 1
    checkpoint["step"] = 4
    assert write.is_busy()
    assert (write.path, write.nbytes) == (path, 6 * 4 + 2 * 4), "tied weights are copied once"
    released.set()
    write.wait()

    assert not write.is_busy()
    assert order == [("before", False, "checkpoint writer"), ("after", True)]
    read = read_checkpoint(path)
    assert (read["step"], read["weights"]["a"].tolist()) == (3, [0, 1, 2, 3, 4, 5])
    write_checkpoint(other, read)
    assert Path(path).read_bytes() == Path(other).read_bytes()


def test_at_most_one_snapshot_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[weakref.ref[Tensor]] = []
    real, most = checkpoint_writer._host_copy, 0

    def copy(tensor: Tensor) -> Tensor:
        nonlocal most
        made = real(tensor)
        copies.append(weakref.ref(made))
        most = max(most, sum(one() is not None for one in copies))
        return made

    monkeypatch.setattr(checkpoint_writer, "_host_copy", copy)
    writer = CheckpointWriter()
    gc.disable()  # it must not be needed
    try:
        for step in range(4):
            writer.write(f"{tmp_path}/{step}.ckpt", {"a": torch.rand(9), "b": torch.rand(9)})
        writer.wait()
    finally:
        gc.enable()

    assert len(copies) == 8
    assert most == 2
    assert [one() for one in copies] == [None] * 8


def test_a_write_that_fails_is_raised_once_by_whatever_comes_next(tmp_path: Path) -> None:
    def broken() -> None:
        raise StoreError("the store is down")

    writer = CheckpointWriter()
    for then in (
        writer.check,
        writer.wait,
        lambda: writer.write(f"{tmp_path}/b.ckpt", {}),
    ):
        writer.write(f"{tmp_path}/a.ckpt", {"a": 1}, broken)
        assert not writer.is_busy(10)
        with pytest.raises(StoreError, match="the store is down"):
            then()
        writer.wait()
    assert not list(tmp_path.iterdir())


def test_an_abandoned_write_leaves_no_file(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go.wait(20)

    writer = CheckpointWriter()
    writer.write(f"{tmp_path}/a.ckpt", {"a": torch.zeros(9)}, wait)
    assert begun.wait(20)
    threading.Timer(0.02, go.set).start()
    writer.abandon()

    assert not writer.is_busy()
    writer.check()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_copies_into_pinned_memory_before_its_later_work() -> None:
    weight = torch.ones(1 << 24, device="cuda")
    snapshot = Snapshot.of({"a": weight})
    weight += 1
    copy = snapshot.contents["a"]
    assert copy.is_pinned()
    snapshot.wait()
    assert bool((copy == 1).all())
