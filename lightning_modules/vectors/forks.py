"""Models in forked processes, such as the workers of multiprocessing's method "fork".

A forked process has only the thread that forked, but memory as all threads left it. Two things make it
hang: a lock that another thread held, and GNU OpenMP, whose threads exist only in the parent.
"""

import os
import weakref
from typing import ClassVar, Protocol

import torch


class HasLock(Protocol):
    """An object with a lock."""

    def renew_lock(self) -> None:
        """Replace the lock by a new one."""


class _Process:
    """This process.

    Attributes:
        computed: whether a model has computed in it.
        forked: whether it was forked from a process in which a model has computed.
        locked: the objects whose locks are replaced in a forked process.
    """

    computed: ClassVar[bool] = False
    forked: ClassVar[bool] = False
    locked: ClassVar["weakref.WeakSet[HasLock]"] = weakref.WeakSet()


def after_fork_renew(owner: HasLock) -> None:
    """Replace the lock of an object in each forked process."""
    _Process.locked.add(owner)


def before_computing() -> None:
    """Set torch to one thread if this process was forked from one in which a model has computed.

    With more threads it would hang. The workers of torch's DataLoader have one thread, too.
    """
    _Process.computed = True
    if _Process.forked and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def _in_child() -> None:
    _Process.forked = _Process.computed
    for owner in list(_Process.locked):
        owner.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
