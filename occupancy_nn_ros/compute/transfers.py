# SPDX-License-Identifier: Apache-2.0
"""Between host and GPU: copies that the host does not wait for, and one that it does, for all that it wants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def upload(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """An array on a GPU; the host goes on before it has arrived, and may change the array."""
    return torch.from_numpy(values).pin_memory().to(device, non_blocking=True)


def download(tensors: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    """Tensors of one GPU as arrays of the same shapes, by one copy; the host waits for it, and so for all work before.

    Args:
        tensors: by name; of any type that numpy has.
    """
    # What has the widest numbers comes first, so that all begin where their type may.
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())
    if not order:
        return {}
    packed = torch.cat([tensors[name].contiguous().flatten().view(torch.uint8) for name in order])
    host = torch.empty(len(packed), dtype=torch.uint8, pin_memory=True)
    host.copy_(packed, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(packed.device))
    arrived.synchronize()
    content, arrays, start = host.numpy(), {}, 0
    for name in order:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        arrays[name] = content[start:end].view(numpy_type(tensor.dtype)).reshape(tuple(tensor.shape))
        start = end
    return arrays


def numpy_type(dtype: torch.dtype) -> np.dtype[Any]:
    """The array type of a tensor type."""
    return torch.empty(0, dtype=dtype).numpy().dtype
