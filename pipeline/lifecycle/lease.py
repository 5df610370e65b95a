"""A lease on a folder: a lock file that its holder renews, to show other processes that it runs."""

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.console import Console
from pipeline.lifecycle.holder import read_holder, read_lock, write_holder
from preprocess.errors import UserError
from preprocess.files import processes, storage
from preprocess.files.exclusive import (
    create_exclusive,
    one_at_a_time,
    remove_exclusive,
    update_exclusive,
)
from preprocess.files.write_checks import checked_writes

BEAT_SECONDS = 10.0
"""Time between two renewals of a lock file."""


class LeaseLost(UserError):  # noqa: N818
    """This process may no longer write a folder, because another process may have taken it over."""


def _clock() -> float:
    """Return seconds of a clock that also counts while the machine is suspended, if there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Lease:
    """The right of this process to write a folder.

    A thread renews the lock file every `BEAT_SECONDS`. Another process may take the file over if it does
    not change for `processes.SILENCE_SECONDS`: because this process was suspended, its machine lost its
    network, or the store did not answer. The lease is then lost. Nothing interrupts the work at that
    moment, but every later change that this process makes in the folder through
    `preprocess.files.storage`, and every call of `check`, raises `LeaseLost`. Forked processes do not
    hold the lease; in them, nothing is checked.

    Args:
        folder: the folder.
        path: its lock file.
    """

    def __init__(self, folder: str, path: str) -> None:
        self._folder, self._path = folder, path
        self._token = secrets.token_hex(8)
        self._identity = processes.this_process()
        self._beat = 0
        self._renewed_at = _clock()
        self._lost_to = ""
        self._may_exist = False
        self._mutex = threading.Lock()
        self._is_over = threading.Event()

    def create(self) -> bool:
        """Create the lock file; return False if there is one already."""
        self._may_exist = True
        self._renewed_at = _clock()
        return create_exclusive(self._path, self._content())

    def take_over(self, seen: bytes) -> bool:
        """Replace another lock file; return False if its content is no longer ``seen``."""
        self._may_exist = True
        self._renewed_at = _clock()
        mine = self._content()
        return update_exclusive(self._path, lambda old: mine if old == seen else None)

    def check(self) -> None:
        """Read the lock file and return if this process still holds the lease.

        Call it before the result is published.

        Raises:
            LeaseLost: the lock file is another process's or gone; or it can neither be read now, nor was
                it renewed within `processes.SILENCE_SECONDS`.
        """
        if os.getpid() != self._identity.process:
            return
        with self._mutex:
            try:
                if not self._lost_to:
                    self._verify()
            except (OSError, UserError) as error:
                silent = _clock() - self._renewed_at
                if silent > processes.SILENCE_SECONDS:
                    raise self._lost(f"not renewed for {silent:.0f} s: {error}") from error
            if self._lost_to:
                raise self._lost(self._lost_to)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the lock file while the block runs, and check the lease before each write."""
        thread = threading.Thread(target=self._keep, name="biloom-lease", daemon=True)
        thread.start()
        try:
            with checked_writes(self._token, storage.absolute(self._folder), self._check_write):
                yield
        finally:
            self._is_over.set()
            # Unless a request hangs: the thread ends with the process.
            thread.join(BEAT_SECONDS)

    def release(self, console: Console) -> None:
        """Remove the lock file if it is still this lease's; an error is only shown.

        Remove its folder too if that is empty.
        """
        if not self._may_exist or os.getpid() != self._identity.process:
            return
        try:
            remove_exclusive(self._path, self._is_own)
        except (OSError, UserError) as error:
            console.warn(f"could not remove the lock file {self._path} ({error})")
        if not storage.is_remote(self._folder):
            # Not while another process creates the folder for its lock file.
            with suppress(OSError), one_at_a_time(self._folder):
                storage.local_path(self._path).parent.rmdir()

    def _content(self) -> bytes:
        return write_holder(self._identity, self._token, self._beat)

    def _is_own(self, content: bytes) -> bool:
        return self._token.encode() in content

    def _keep(self) -> None:
        while not self._is_over.wait(BEAT_SECONDS) and not self._lost_to:
            # A failure may pass. If it lasts, the next check tells it.
            with suppress(Exception), self._mutex:
                self._renew()

    def _check_write(self) -> None:
        # The heartbeat has just seen that the lease is held, and nobody takes it over so soon.
        if self._lost_to or _clock() - self._renewed_at > 2 * BEAT_SECONDS:
            self.check()

    def _verify(self) -> None:
        if _clock() - self._renewed_at > processes.SILENCE_SECONDS / 2:
            # Reading is not enough: another process may be about to take the lease over.
            self._renew()
        else:
            self._look(read_lock(self._path))

    def _renew(self) -> None:
        began = _clock()
        self._beat += 1
        new = self._content()
        if update_exclusive(
            self._path, lambda old: new if self._is_own(old) else None, in_place=True
        ):
            self._renewed_at = began
        else:
            self._look(read_lock(self._path))

    def _look(self, content: bytes | None) -> None:
        if content is None:
            self._lost_to = "its lock file is gone"
        elif not self._is_own(content):
            self._lost_to = f"{read_holder(content) or 'an unknown process'} has taken it over"

    def _lost(self, why: str) -> LeaseLost:
        return LeaseLost(
            f"{self._folder}: this process no longer holds the lock of the folder ({why}), so it writes "
            "nothing more there; usually it was suspended, or could not reach the lock file, for more "
            f"than {processes.SILENCE_SECONDS:.0f} s; run the same command to resume or to see the "
            "result"
        )
