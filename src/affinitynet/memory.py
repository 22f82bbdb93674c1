"""Freed memory stays with the process while it works, for the next array of its size."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
# What glibc comes to by itself once an array of 32 MB has been freed, and its number of mappings.
_USUAL = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20))
_users = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep what is freed within, and give it back to the system at the end.

    glibc takes every array above 32 MB from the system and returns it at once, so that each layer
    of a training step has its memory cleared page by page: a quarter of the step. Kept, it takes a
    tenth more at the peak. Without glibc nothing happens; contexts may lie in each other.
    """
    global _users
    libc = _glibc()
    if libc is None:
        yield
        return
    _users += 1
    if _users == 1:
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        _users -= 1
        if not _users:
            for option, value in _USUAL:
                libc.mallopt(option, value)
            libc.malloc_trim(0)


def _glibc() -> Any:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
