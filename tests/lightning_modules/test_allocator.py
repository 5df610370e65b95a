"""What glibc's malloc is told, in a process of its own: no other test should run with it."""

import subprocess
import sys

import pytest

# Page faults of a block of so many MB that is taken and left again and again.
FAULTS = """
import ctypes, resource, sys
size, large = int(sys.argv[1]) << 20, sys.argv[2] == "large"
from lightning_modules.allocator import memory_kept
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
with memory_kept(large):
    faults()
    inside = faults()
after = faults()
print(before, inside, after)
"""


def faults(megabytes: int, how: str) -> list[int]:
    """Before, inside and after."""
    if not sys.platform.startswith("linux"):
        pytest.skip("glibc alone is told")
    command = [sys.executable, "-c", FAULTS, str(megabytes), how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(count) for count in done.stdout.split()]


@pytest.mark.parametrize(("megabytes", "how"), [(64, "large"), (16, "large"), (16, "small")])
def test_memory_is_kept_inside_and_given_back_after(megabytes: int, how: str) -> None:
    before, inside, after = faults(megabytes, how)

    assert inside < before / 20
    assert after > before / 2


def test_large_blocks_are_given_back_where_they_are_not_the_same_again() -> None:
    before, inside, _ = faults(64, "small")

    assert inside > before / 2


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_modules import allocator

    def none(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(allocator.ctypes, "CDLL", none)
    with allocator.memory_kept():
        pass
