# SPDX-License-Identifier: Apache-2.0
"""How threads of libraries wait for each other, and how many OpenCV has. Imports nothing: it must come before the libraries do."""

from __future__ import annotations

import os
import sys

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""OpenMP's own variable, and those of GNU's and LLVM's versions of it, which torch, numba and OpenCV may bring."""

OPENCV = {"OPENCV_FOR_THREADS_NUM": "1"}
"""OpenCV brings threads of its own that spin as well. Pictures are worked on side by side by ours, one thread each."""


def wait_passively() -> bool:
    """Have OpenMP's threads sleep while they wait, and OpenCV use the thread that calls it, unless the environment says otherwise.

    For the beginning of a program: processes that it starts inherit this.

    By default they spin. Where other processes want the cores too, a thread then spins away the time in which the one that
    it waits for could run: with two busy neighbours a keyframe took up to 12 s instead of 0.7 s.

    Returns:
        Whether this came in time: torch reads the environment when it is loaded.
    """
    for name, value in (PASSIVE | OPENCV).items():
        os.environ.setdefault(name, value)
    return "torch" not in sys.modules
