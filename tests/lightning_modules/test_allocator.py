"""What glibc's malloc is told, in a process of its own: no other test should run with it."""

import subprocess
import sys

import pytest

# Page faults of a block of 64 MB that is taken and left again and again.
FAULTS = """
import ctypes, resource
from lightning_modules.allocator import memory_kept
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def faults():
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        block = libc.malloc(ctypes.c_size_t(64 << 20))
        ctypes.memset(block, 1, 64 << 20)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun
before = faults()
with memory_kept():
    faults()
    inside = faults()
after = faults()
print(before, inside, after)
"""


def test_memory_is_kept_inside_and_given_back_after() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("glibc alone is told")
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    before, inside, after = map(int, done.stdout.split())

    assert inside < before / 20
    assert after > before / 2


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_modules import allocator

    def none(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(allocator.ctypes, "CDLL", none)
    with allocator.memory_kept():
        pass
