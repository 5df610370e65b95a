"""Effect of `keep_memory` on glibc's malloc, in a process of its own so that no other test is affected."""

import subprocess
import sys

import pytest

# Count the page faults of allocating and freeing a block of argv[1] MB eight times.
FAULTS = """
import ctypes, resource, sys
size, large = int(sys.argv[1]) << 20, sys.argv[2] == "large"
from lightning_modules.allocator import keep_memory
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def faults():
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        block = libc.malloc(ctypes.c_size_t(size))
        ctypes.memset(block, 1, size)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun
before = faults()
with keep_memory(large):
    faults()
    inside = faults()
after = faults()
print(before, inside, after)
"""


def faults(megabytes: int, how: str) -> list[int]:
    """Return the page faults before, inside and after `keep_memory`."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only glibc has these thresholds")
    command = [sys.executable, "-c", FAULTS, str(megabytes), how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(count) for count in done.stdout.split()]


@pytest.mark.parametrize(("megabytes", "how"), [(64, "large"), (16, "large"), (16, "small")])
def test_freed_memory_is_kept_inside_the_context_and_returned_after_it(
    megabytes: int, how: str
) -> None:
    before, inside, after = faults(megabytes, how)

    assert inside < before / 20
    assert after > before / 2


def test_large_blocks_are_returned_unless_they_are_to_be_kept() -> None:
    before, inside, _ = faults(64, "small")

    assert inside > before / 2


def test_nothing_happens_with_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_modules import allocator

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(allocator.ctypes, "CDLL", missing)
    with allocator.keep_memory():
        pass
