"""Write the files of checkpoints, beside a training that continues meanwhile."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple, cast

import torch
import xxhash
from torch import Tensor

from lightning_modules.models.checkpoint_file import AT_ONCE, CHECKSUM, COMMENT_BYTES, MARK
from preprocess.files import storage

ABANDON_SECONDS = 2.0
"""How long to wait for a write that is abandoned."""


class Snapshot(NamedTuple):
    """A copy of a checkpoint in host memory, which does not change when training continues.

    Attributes:
        contents: the copy. The copies of a GPU's tensors are complete after `wait`.
        nbytes: size of its tensors in bytes.
        copied: events of the GPUs that copy them.
    """

    contents: dict[str, Any]
    nbytes: int
    copied: list[torch.cuda.Event]

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> "Snapshot":
        """Return a snapshot of a checkpoint.

        A GPU copies its tensors into pinned memory without the host waiting for it. Later work of the
        GPU's current stream begins after the copies, so training may continue at once.

        Args:
            checkpoint: nested dicts, lists and tuples of tensors and plain values. Tensors that share
                memory completely, such as tied weights, are copied and stored once.
        """
        copies: dict[Any, Tensor] = {}
        contents = _canonical({**checkpoint, CHECKSUM: "xxh128"}, copies)
        gpus = {key[0] for key in copies if key[0].type == "cuda"}
        events = []
        for gpu in gpus:
            with torch.cuda.device(gpu):
                events.append(torch.cuda.Event())
                events[-1].record()
        return cls(contents, sum(copy.nbytes for copy in copies.values()), events)

    def wait(self) -> None:
        """Wait until all copies are complete."""
        for event in self.copied:
            event.synchronize()


def _canonical(value: Any, copies: dict[Any, Tensor]) -> Any:
    """Return a copy that shares no object except interned strings and the given ``copies``.

    The order of keys, and which equal strings are one object, do not matter.
    """
    if isinstance(value, Tensor):
        value = value.detach()
        key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if not value.numel() or key not in copies:
            copies[key] = _host_copy(value)
        return copies[key]
    if isinstance(value, Mapping):
        items = [(_canonical(k, copies), _canonical(v, copies)) for k, v in value.items()]
        return dict(sorted(items, key=lambda item: (type(item[0]).__name__, item[0])))
    if isinstance(value, list | tuple):
        return type(value)([_canonical(one, copies) for one in value])
    return sys.intern(value) if isinstance(value, str) else value


def _host_copy(tensor: Tensor) -> Tensor:
    """Return a contiguous copy in host memory; that of a GPU's tensor is pinned and not complete yet."""
    pinned = tensor.is_cuda
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=pinned)
    return copy.copy_(tensor, non_blocking=pinned)


class _Abandoned(Exception):  # noqa: N818
    """Ends a write that is no longer needed."""


class _Archive:
    """A binary file for `torch.save`, to which `close` adds the checksum.

    An error of the file is raised by `close` only, because `torch.save` calls `write` from C.

    Args:
        file: the file.
        abandoned: an event that ends the write.
    """

    def __init__(self, file: IO[bytes], abandoned: threading.Event) -> None:
        self._file, self._hash, self._end = file, xxhash.xxh128(), b""
        self._abandoned = abandoned
        self._error: BaseException | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Write data, except the last two bytes of all data so far."""
        view = memoryview(data).cast("B")
        if len(view) > 1:
            self._put(self._end)
            self._put(view[:-2])
            self._end = bytes(view[-2:])
        else:
            self._end += view
            self._put(self._end[:-2])
            self._end = self._end[-2:]
        return len(view)

    def flush(self) -> None:
        """Do nothing; `torch.save` calls it."""

    def close(self) -> None:
        """Write the rest, with the checksum as the comment of the archive.

        Raises:
            OSError: from the file, at any write.
            _Abandoned: the event was set.
        """
        # The last two bytes of an archive without a comment are the length of the comment.
        self._put(COMMENT_BYTES.to_bytes(2, "little"))
        self._put(MARK + self._hash.hexdigest().encode())
        if self._error:
            raise self._error

    def _put(self, data: bytes | memoryview) -> None:
        # In parts, because hashing and writing release Python's lock, but return a part at a time.
        for start in range(0, len(data), AT_ONCE):
            if self._abandoned.is_set():
                self._error = _Abandoned()
            if self._error:
                return
            part = data[start : start + AT_ONCE]
            self._hash.update(part)
            try:
                self._file.write(part)
            except BaseException as error:
                self._error = error


def write_checkpoint(
    path: str, checkpoint: Mapping[str, Any] | Snapshot, abandoned: threading.Event | None = None
) -> None:
    """Write the file of a checkpoint atomically; its bytes depend on the contents only.

    Args:
        path: path or URL of the file.
        checkpoint: a snapshot, or what `Snapshot.of` takes.
        abandoned: an event that ends the write without a file.

    Raises:
        StorageError: as from `storage.atomic_writer`.
    """
    snapshot = checkpoint if isinstance(checkpoint, Snapshot) else Snapshot.of(checkpoint)
    snapshot.wait()
    with storage.atomic_writer(path) as file:
        archive = _Archive(file, abandoned or threading.Event())
        torch.save(snapshot.contents, cast(IO[bytes], archive))
        archive.close()


def _nothing() -> None:
    pass


class CheckpointWriter:
    """Writes checkpoints in a thread, one at a time, while training continues.

    At most one snapshot exists. Lightning's `AsyncCheckpointIO` copies a GPU's tensors on the GPU, queues
    any number of checkpoints, and tells neither whether it is busy nor, before the next checkpoint,
    that it has failed.

    Attributes:
        path: path of the file that was written last, or is being written.
        nbytes: size of its tensors in bytes.
    """

    def __init__(self) -> None:
        self.path, self.nbytes = "", 0
        self._began = 0.0
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._abandoned = threading.Event()

    @property
    def seconds(self) -> float:
        """Time since the write began, in seconds."""
        return time.monotonic() - self._began

    def write(
        self,
        path: str,
        checkpoint: Mapping[str, Any],
        before: Callable[[], None] = _nothing,
        after: Callable[[], None] = _nothing,
    ) -> None:
        """Take a snapshot of a checkpoint, and begin to write it; wait for the write before it.

        Args:
            path: path or URL of the file.
            checkpoint: as for `Snapshot.of`.
            before, after: called in the thread before the file is written, and after it is complete.

        Raises:
            Exception: the write before it failed.
        """
        self.wait()
        snapshot = Snapshot.of(checkpoint)
        self.path, self.nbytes, self._began = path, snapshot.nbytes, time.monotonic()
        self._thread = threading.Thread(
            target=self._write,
            args=(path, snapshot, before, after),
            name="checkpoint writer",
            daemon=True,
        )
        del snapshot
        self._thread.start()

    def is_busy(self, patience: float = 0.0) -> bool:
        """Return True if a file is still being written after ``patience`` seconds."""
        if self._thread:
            self._thread.join(patience)
        return self._thread is not None and self._thread.is_alive()

    def check(self) -> None:
        """Raise the error of a write that failed, once."""
        if self._error and not self.is_busy():
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until the file is complete; raise the error if that fails."""
        if self._thread:
            self._thread.join()
        self.check()

    def abandon(self) -> None:
        """Let a write end without its file, and wait for a few seconds until it has ended."""
        self._abandoned.set()
        self.is_busy(ABANDON_SECONDS)

    def _write(
        self,
        path: str,
        snapshot: Snapshot,
        before: Callable[[], None],
        after: Callable[[], None],
    ) -> None:
        # Signals are for the main thread, which may be in a call that only a signal to itself interrupts.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            before()
            write_checkpoint(path, snapshot, self._abandoned)
            after()
        except _Abandoned:
            pass
        except BaseException as error:
            self._error = error
