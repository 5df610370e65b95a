"""Keep the memory that a training step frees in the process, so that the next step reuses it."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h of glibc
DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_THRESHOLD, DEFAULT_MMAP_MAX = 128 * 1024, 128 * 1024, 65536
NEVER = (1 << 31) - 1
LARGE = 1 << 25
"""Highest M_MMAP_THRESHOLD that glibc accepts, in bytes: 32 MB."""


@contextmanager
def keep_memory(large: bool = True) -> Iterator[None]:
    """Make glibc's malloc keep freed memory while the context is active.

    By default malloc returns large blocks to the kernel, which zeroes every page again when they
    are next allocated. For short training steps that allocate the same tensors each time, this
    takes a tenth of the time. With another C library nothing is changed. On exit, glibc's default
    thresholds are restored and free memory is returned to the kernel.

    Args:
        large: also keep blocks of 32 MB and more. Use False if their sizes vary from step to step,
            because then fragmentation would grow.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):
        yield
        return
    if large:
        mallopt(M_MMAP_MAX, 0)
    else:
        mallopt(M_MMAP_THRESHOLD, LARGE)
    mallopt(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)
        mallopt(M_MMAP_THRESHOLD, DEFAULT_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD)
        trim(0)
