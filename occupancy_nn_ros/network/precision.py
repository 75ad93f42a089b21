# SPDX-License-Identifier: Apache-2.0
"""In how many digits the network computes. What finds places in pictures keeps float32, whatever precision activations have."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

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


def shortened(activations: Tensor) -> Tensor:
    """Activations as autocast hands them to a convolution, where it is active."""
    kind = activations.device.type
    return activations.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else activations


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers in hardware; without it they are slower than float32."""
    try:
        has = torch.cpu.get_capabilities()
    except AttributeError:  # before torch 2.8
        flags = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(flags and flags())
    return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("arm_bf16"))
