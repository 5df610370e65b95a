"""Memory of a process and its descendants."""

from pathlib import Path


def tree_mb(root: int) -> float:
    """Return the resident memory in MB of a process and its descendants."""
    kilobytes, waiting = 0, [root]
    while waiting:
        folder = Path("/proc") / str(waiting.pop())
        try:
            for line in (folder / "status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    kilobytes += int(line.split()[1])
            for task in (folder / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return kilobytes / 1000
