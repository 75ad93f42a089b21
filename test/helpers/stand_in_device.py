# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a GPU: tensors that say they are on ``cuda`` and lie in memory.

What otherwise only a real device shows fails here too: mixing tensors of both devices, and reading a tensor of the
device as an array. It computes on the CPU, so that results are those of the plain torch code, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda", 0)
TRANSFERS = (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda)
ANSWERS = {torch.Tensor.device.__get__: DEVICE, torch.Tensor.is_cuda.__get__: True, torch.Tensor.is_cpu.__get__: False}
TO_ARRAY = (torch.Tensor.numpy, torch.Tensor.__array__)


class MixedDevicesError(RuntimeError):
    """An operation was given tensors of both devices."""


class OnDevice(torch.Tensor):
    """A tensor of the stand-in."""


class _Mode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [item for item in tree_flatten((args, kwargs))[0] if isinstance(item, torch.Tensor)]
        there = any(isinstance(item, OnDevice) for item in tensors)
        if there and func in ANSWERS:
            return ANSWERS[func]
        if there and func in TO_ARRAY:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func in TRANSFERS:
            return _transfer(func, args, kwargs, there)
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == "cuda"
            kwargs["device"] = "cpu"
        else:
            _check(func, args, tensors)
        with torch._C.DisableTorchFunctionSubclass():
            return _placed(func(*args, **kwargs), there)


def _transfer(func: Any, args: Any, kwargs: dict[str, Any], there: bool) -> Any:
    """``to`` and its kin; a device is named, or that of another tensor is meant, or none."""
    if func is not torch.Tensor.to:
        return _placed(args[0].as_subclass(torch.Tensor), func is torch.Tensor.cuda)
    rest = []
    for item in (*args[1:], *([kwargs.pop("device")] if "device" in kwargs else [])):
        if isinstance(item, (str, torch.device)):
            there = torch.device(item).type == "cuda"
        elif isinstance(item, torch.Tensor):
            there = isinstance(item, OnDevice)
            rest.append(item.dtype)
        else:
            rest.append(item)
    with torch._C.DisableTorchFunctionSubclass():
        plain = args[0].as_subclass(torch.Tensor)
        return _placed(plain.to(*rest, **kwargs) if rest or kwargs else plain, there)


def _check(func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
    if func is torch.Tensor.copy_:
        return
    if func is torch.Tensor.__getitem__ and isinstance(args[0], OnDevice):
        return  # torch takes indices from the CPU
    if func is torch.Tensor.__setitem__ and not any(isinstance(i, torch.Tensor) for i in tree_flatten(args[1])[0]):
        return  # a copy
    kinds = {isinstance(item, OnDevice) for item in tensors if torch.Tensor.dim(item) > 0}
    if len(kinds) > 1:
        raise MixedDevicesError(f"{func} of tensors of both devices")


def _placed(result: Any, there: bool) -> Any:
    kind = OnDevice if there else torch.Tensor

    def place(item: Any) -> Any:
        if not isinstance(item, torch.Tensor) or type(item) is kind or isinstance(item, torch.nn.Parameter):
            return item
        return item.as_subclass(kind)

    if isinstance(result, (torch.Size, str)):
        return result
    with torch._C.DisableTorchFunctionSubclass():
        return tree_map(place, result)


def _module_to(module: torch.nn.Module, device: Any) -> torch.nn.Module:
    if torch.device(device).type == "cuda":
        for part in module.modules():
            for group in (part._parameters, part._buffers):
                for name, tensor in group.items():
                    if tensor is not None:
                        group[name] = tensor.detach().as_subclass(OnDevice)  # type: ignore[assignment]
    return module


@contextmanager
def stand_in_device(patch: Callable[[object, str, object], None]) -> Iterator[str]:
    """While this lasts, the device it names exists; ``patch`` is pytest's ``monkeypatch.setattr``."""
    patch(torch.cuda, "is_available", lambda: True)
    patch(torch.cuda, "device_count", lambda: 1)
    patch(torch.cuda, "mem_get_info", lambda device=None: (8 << 30, 8 << 30))
    patch(torch.cuda, "synchronize", lambda device=None: None)
    patch(torch.nn.Module, "to", _module_to)
    with torch.no_grad(), _Mode():
        yield "cuda"
