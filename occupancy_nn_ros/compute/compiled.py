# SPDX-License-Identifier: Apache-2.0
"""How compiled kernels are made and run: one decorator, one thread pool, one warm-up.

Kernels release the interpreter lock and are run in threads of our own: numba's own parallel loops abort the process
when two threads enter them at once, or when it forks later, and both happen in a node and in data loaders. Knows
nothing about maps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from occupancy_nn_ros.compute.threads import parts_worth, pool

try:
    import numba
except ImportError:  # the torch versions of everything take over
    numba = None

Function = TypeVar("Function", bound=Callable[..., Any])

Scalar = Any
"""A number inside a kernel whose width matters, float32 or unsigned: no type of Python's names it."""

HAVE_KERNELS = numba is not None
"""Whether compiled kernels exist; without numba every function falls back to its torch or scipy version."""

_kernels: list[Any] = []


def kernel(function: Function) -> Function:
    """Compile a function on its first call, and keep the result on disk where there is a place for it."""
    return _compile(function, fastmath=False)


def reordering_kernel(function: Function) -> Function:
    """The same; sums may be taken in another order than written and products joined with them, as vector units do."""
    return _compile(function, fastmath={"reassoc", "contract", "nsz"})


def inlined(function: Function) -> Function:
    """A part of kernels that becomes one with each of them."""
    return function if numba is None else numba.njit(inline="always")(function)


def _compile(function: Function, *, fastmath: bool | set[str]) -> Function:
    if numba is None:
        return function
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        compiled = numba.njit(**options)(function)
    _kernels.append(compiled)
    return compiled  # type: ignore[no-any-return]


def are_compiled() -> bool:
    """Whether kernels lie on disk, so that their first calls do not take seconds."""
    return any(
        kernel.stats.cache_path is not None
        and any(Path(kernel.stats.cache_path).glob(f"*{kernel.py_func.__qualname__}-*.nbi"))
        for kernel in _kernels
    )


def use_kernels(device: torch.device) -> bool:
    """Whether data on a device is processed by compiled kernels."""
    return HAVE_KERNELS and device.type == "cpu"


def run_split(function: Callable[..., Any], count: int, *arguments: Any, least: int = 1) -> list[Any]:
    """Call ``function(start, stop, *arguments)`` on parts of ``range(count)``, one for each thread.

    Args:
        function: a kernel; its result must not depend on how the range is cut.
        count: length of the range.
        arguments: passed on.
        least: smallest part that is worth a thread.

    Returns:
        The results in order of the parts.
    """
    workers = parts_worth(count, least)
    if workers == 1:
        return [function(0, count, *arguments)]
    edges = [count * n // workers for n in range(workers + 1)]
    team = pool(workers - 1)
    rest = [team.submit(function, edges[n], edges[n + 1], *arguments) for n in range(1, workers)]
    first = function(0, edges[1], *arguments)
    return [first, *(part.result() for part in rest)]
