"""Cores and threads that this process may use, and how it ends together with its parent."""

import ctypes
import math
import os
import signal
import threading
import time
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl: the signal that a process gets when its parent ends."""
PARENT_SECONDS = 1.0


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, and the CPU quota of its cgroup.

    A container's quota is not visible in the affinity, nor in `os.cpu_count`.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota())))


def _quota() -> float:
    """Return the smallest CPU quota of this process's cgroups, in cores; infinity if there is none."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    found = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / controllers if controllers else CGROUPS
        # In a container, the path may be the host's; its own cgroup is then the root.
        own = Path(path.lstrip("/"))
        found += [_quota_of(root / folder) for folder in (own, *own.parents)]
    return min(found)


def _quota_of(folder: Path) -> float:
    """Return the quota of a cgroup of version 2 or 1, in cores."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
            if quota not in ("max", "-1"):
                return int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return math.inf


def check_threads(number: int) -> None:
    """Start and end ``number`` threads.

    Native libraries end the process, or send it SIGINT, if they cannot start a thread.

    Raises:
        RuntimeError: a thread cannot be started.
    """
    go = threading.Event()
    threads = []
    try:
        for _ in range(number):
            thread = threading.Thread(target=go.wait, daemon=True)
            thread.start()
            threads.append(thread)
    finally:
        go.set()
        for thread in threads:
            thread.join()


def end_with_parent(parent: int) -> None:
    """Let this process end when the process that started it ends, even if that one is killed.

    Args:
        parent: number of the process that started this one, which may have ended already.
    """
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError, TypeError):  # not Linux

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(PARENT_SECONDS)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)
