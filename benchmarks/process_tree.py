"""Memory and CPU time of a process and its descendants."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def tree_mb(root: int) -> float:
    """Return the resident memory in MB of a process and its descendants."""
    kilobytes = 0
    for folder in _tree(root):
        with suppress(FileNotFoundError, ProcessLookupError):
            for line in (folder / "status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    kilobytes += int(line.split()[1])
    return kilobytes / 1000


def tree_cpu(root: int) -> float:
    """Return the CPU seconds of a process, its descendants and those of them that have ended."""
    ticks = 0
    for folder in _tree(root):
        with suppress(FileNotFoundError, ProcessLookupError):
            # utime, stime, cutime and cstime of proc_pid_stat(5); a name may have spaces.
            ticks += sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / TICKS


def _tree(root: int) -> Iterator[Path]:
    """Yield the folder in /proc of a process and its descendants."""
    waiting = [root]
    while waiting:
        folder = Path("/proc") / str(waiting.pop())
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in (folder / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        yield folder
