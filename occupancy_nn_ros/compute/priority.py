# SPDX-License-Identifier: Apache-2.0
"""Which threads of this process go first where cores are few."""

from __future__ import annotations

import os


def compute_in_batch() -> bool:
    """Have the calling thread, and all that it starts, compute as batch work: it never cuts short a thread that just woke up.

    So messages are taken in first, while the share of the cores stays the same. Lower priority (``nice``) does harm instead: the
    computing thread holds the interpreter lock at times, and whoever receives then waits until it gets its turn again.

    Returns:
        Whether this took place: only on Linux, and only for a thread of the ordinary kind.
    """
    if not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:  # a container may forbid it
        return False
    return True
