# SPDX-License-Identifier: Apache-2.0
"""How compiled kernels are made and run: one decorator, one thread pool, one warm-up.

Kernels release the interpreter lock and are run in threads of our own: numba's own parallel loops abort the process
when two threads enter them at once, or when it forks later, and both happen in a node and in data loaders. Knows
nothing about maps.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

try:
    import numba
except ImportError:  # the torch versions of everything take over
    numba = None

Function = TypeVar("Function", bound=Callable[..., Any])

HAVE_KERNELS = numba is not None
"""Whether compiled kernels exist; without numba every function falls back to its torch or scipy version."""

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def kernel(function: Function) -> Function:
    """Compile a function on its first call, and keep the result on disk where there is a place for it."""
    if numba is None:
        return function
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(**options)(function)  # type: ignore[no-any-return]


def use_kernels(device: torch.device) -> bool:
    """Whether data on a device is processed by compiled kernels."""
    return HAVE_KERNELS and device.type == "cpu"


def run_split(function: Callable[..., Any], count: int, *arguments: Any, least: int = 1) -> list[Any]:
    """Call ``function(start, stop, *arguments)`` on parts of ``range(count)``, one for each of torch's threads.

    Args:
        function: a kernel; its result must not depend on how the range is cut.
        count: length of the range.
        arguments: passed on.
        least: smallest part that is worth a thread.

    Returns:
        The results in order of the parts.
    """
    workers = max(1, min(torch.get_num_threads(), count // max(1, least)))
    if workers == 1:
        return [function(0, count, *arguments)]
    edges = [count * n // workers for n in range(workers + 1)]
    pool = _pool(workers - 1)
    rest = [pool.submit(function, edges[n], edges[n + 1], *arguments) for n in range(1, workers)]
    first = function(0, edges[1], *arguments)
    return [first, *(part.result() for part in rest)]


def _pool(workers: int) -> ThreadPoolExecutor:
    """The pool of this process: threads do not survive a fork."""
    key = (os.getpid(), workers)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(workers, thread_name_prefix="map")
    return _pools[key]
