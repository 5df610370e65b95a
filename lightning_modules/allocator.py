"""Memory that a training frees and asks for again at every step stays with its process."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h of glibc
DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_THRESHOLD, DEFAULT_MMAP_MAX = 128 * 1024, 128 * 1024, 65536
NEVER = (1 << 31) - 1
LARGE = 1 << 25
"""Bytes; glibc takes no higher threshold."""


@contextmanager
def memory_kept(large: bool = True) -> Iterator[None]:
    """While the block runs, glibc's malloc gives no memory back to the system.

    By itself it returns large blocks at once, and the system gives them out again page by page, each
    filled with zeros first: of a step that takes and leaves the same tensors a hundred times a second,
    that is a tenth. Other systems' allocators are left alone.

    Args:
        large: also of blocks of 32 MB and more. Where these are not the same in every round, the gaps
            between them add up.
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
