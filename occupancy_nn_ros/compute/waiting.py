# SPDX-License-Identifier: Apache-2.0
"""How threads of libraries wait for each other, and how many some have. Imports nothing: it must come before the libraries do."""

from __future__ import annotations

import os
import sys

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""OpenMP's own variable, and those of GNU's and LLVM's versions of it, which torch, numba and OpenCV may bring."""

SINGLE = {"OPENCV_FOR_THREADS_NUM": "1", "OPENBLAS_NUM_THREADS": "1"}
"""OpenCV and OpenBLAS, which numpy and scipy multiply with, bring threads of their own that spin as well. Pictures are worked on side
by side by ours, one thread each. Matrices are small: beside two busy neighbours those of pose alignment took 2.5 s instead of 0.07 s."""


def wait_passively() -> bool:
    """Have OpenMP's threads sleep while they wait, and OpenCV and OpenBLAS use the thread that calls them.

    Where the environment says otherwise, it holds. For the beginning of a program: processes that it starts inherit this.

    By default they spin. Where other processes want the cores too, a thread then spins away the time in which the one that
    it waits for could run: with two busy neighbours a keyframe took up to 12 s instead of 0.7 s.

    Returns:
        Whether this came in time: numpy and torch read the environment when they are loaded.
    """
    for name, value in (PASSIVE | SINGLE).items():
        os.environ.setdefault(name, value)
    return not {"numpy", "torch"} & set(sys.modules)
