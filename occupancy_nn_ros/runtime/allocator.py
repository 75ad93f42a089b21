# SPDX-License-Identifier: Apache-2.0
"""How this process gets memory from the system: a keyframe needs the same hundreds of megabytes as the one before."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Parameters of glibc's mallopt, from its malloc.h."""

MOST_MMAP_THRESHOLD = 32 << 20
"""The highest that glibc takes on 64 bits; larger blocks are always mapped by themselves."""


def keep_freed_memory() -> bool:
    """Have freed memory kept and used again, by all threads alike.

    By default glibc gives much of it back and asks for it anew at each keyframe, page by page, and which holes are left in
    between changes from one keyframe to the next: resident memory wanders.

    Returns:
        Whether the allocator took it; False where it is not glibc's.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    wanted = {M_ARENA_MAX: 1, M_TRIM_THRESHOLD: 2**31 - 1, M_MMAP_THRESHOLD: MOST_MMAP_THRESHOLD}
    taken = [mallopt(parameter, value) for parameter, value in wanted.items()]  # each, whatever came of the others
    return all(taken)


def give_back_freed_memory() -> bool:
    """Give memory that is kept, but not in use, back to the system; False where the allocator is not glibc's."""
    return platform.libc_ver()[0] == "glibc" and bool(ctypes.CDLL(None).malloc_trim(0))
