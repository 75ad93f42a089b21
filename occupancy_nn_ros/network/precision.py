# SPDX-License-Identifier: Apache-2.0
"""Geometry keeps its digits: what finds places in pictures computes in float32, whatever precision activations have."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def in_float32(function: Callable[..., Result]) -> Callable[..., Result]:
    """A function of float32 tensors whose matrix products stay in float32 under autocast, as its other operations do.

    In bfloat16 a pixel's place would be known to one part in 256: two pixels of a picture.
    """

    @wraps(function)
    def exact(*args: Any, **kwargs: Any) -> Result:
        active = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        if not active:
            return function(*args, **kwargs)
        with torch.autocast(active[0], enabled=False):
            return function(*args, **kwargs)

    return exact
