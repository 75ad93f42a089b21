# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a GPU: tensors that say they are on ``cuda`` and lie in memory.

What otherwise only a real device shows fails here too: mixing tensors of both devices, and reading a tensor of the
device as an array. Within ``no_host_waits`` everything fails for which the host would wait for the device. It computes on the
CPU, so that results are those of the plain torch code, to the bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda", 0)
TRANSFERS = (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda)
ANSWERS = {torch.Tensor.device.__get__: DEVICE, torch.Tensor.is_cuda.__get__: True, torch.Tensor.is_cpu.__get__: False}
TO_ARRAY = (torch.Tensor.numpy, torch.Tensor.__array__)
FROM_VALUES = (torch.tensor, torch.as_tensor, torch.from_numpy, torch.Tensor.new_tensor)
"""Make tensors of values of the host."""

READS = (
    torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.nonzero, torch.nonzero, torch.Tensor.unique, torch.unique,
    torch.Tensor.masked_select, torch.masked_select, torch.Tensor.__bool__, torch.Tensor.__float__, torch.Tensor.__int__,
    torch.Tensor.__index__, torch.Tensor.repeat_interleave, torch.repeat_interleave, *TO_ARRAY,
)  # fmt: skip
"""What needs the values of a tensor before the host can go on."""

READING_OPERATORS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "is_nonzero", "equal")
LOOKUPS = ("index", "index_put", "index_put_", "_index_put_impl_")


class MixedDevicesError(RuntimeError):
    """An operation was given tensors of both devices."""


class HostWaitsError(RuntimeError):
    """The host would wait for the device."""


class OnDevice(torch.Tensor):
    """A tensor of the stand-in."""

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            same = self.detach().clone().as_subclass(OnDevice)
        return torch.nn.Parameter(same, self.requires_grad) if isinstance(self, torch.nn.Parameter) else same


class Pinned(torch.Tensor):
    """A tensor of the host that the device can copy by itself."""


class Event:
    """A moment in the device's work."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.recorded = False

    def record(self, stream: Any = None) -> None:
        """Now."""
        self.recorded = True

    def synchronize(self) -> None:
        """Wait for it."""
        assert self.recorded
        _Mode.copies["waits"] += 1

    def elapsed_time(self, later: Event) -> float:
        """Milliseconds until another one: this device takes no time."""
        assert self.recorded and later.recorded
        return 0.0


class Stream:
    """A queue of work."""

    def wait_stream(self, other: Any) -> None:
        """Begin after the other's work."""


class CUDAGraph:
    """Operators as they were called, called again on the same memory: what depends on values then is not seen again."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        """Call them all again."""
        below = torch._C._AutoDispatchBelowAutograd()  # where the operators were seen
        with below, torch._C.DisableTorchFunctionSubclass(), torch._C.DisableTorchFunction():
            for func, args, kwargs, results in self.calls:
                again = tree_flatten(func(*args, **kwargs))[0]
                for old, new in zip(tree_flatten(results)[0], again, strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: CUDAGraph) -> None:
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        self.graph.calls.append((func, args, kwargs or {}, results))
        return results


class _NoReads(TorchDispatchMode):
    """Sees what the function mode does not: operators within others, and those of the backward pass."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        masks = name in LOOKUPS and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if name in READING_OPERATORS or masks:
            raise HostWaitsError(f"{func} needs values of a tensor")
        return func(*args, **(kwargs or {}))


class _Mode(TorchFunctionMode):
    strict = False
    copies: ClassVar[Counter[str]] = Counter()

    def _check_wait(self, func: Any, args: Any, kwargs: Any, there: bool) -> None:
        """Raise if the host would wait for the device."""
        device = kwargs.get("device")
        to_device = device is not None and torch.device(device).type == "cuda"
        if (there and func in READS) or (func in FROM_VALUES and (to_device or there)):
            raise HostWaitsError(f"{func}")
        if func in TRANSFERS:
            goes = _transfer(func, args, dict(kwargs), there)
            if there and not isinstance(goes, OnDevice):
                raise HostWaitsError(f"{func} to the host")
            if not there and isinstance(goes, OnDevice) and not isinstance(args[0], Pinned):
                raise HostWaitsError(f"{func} of memory that is not pinned")
        if func is torch.Tensor.copy_ and there and not isinstance(args[0], Pinned | OnDevice):
            raise HostWaitsError("copy to memory that is not pinned")

    def _count(self, source: bool, target: bool) -> None:
        if source != target:
            self.copies["downloads" if source else "uploads"] += 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [item for item in tree_flatten((args, kwargs))[0] if isinstance(item, torch.Tensor)]
        there = any(isinstance(item, OnDevice) for item in tensors)
        if self.strict:
            self._check_wait(func, args, kwargs, there)
        if func is torch.Tensor.pin_memory or kwargs.pop("pin_memory", False):
            with torch._C.DisableTorchFunctionSubclass():
                result = args[0] if func is torch.Tensor.pin_memory else func(*args, **kwargs)
                return result.as_subclass(Pinned)
        if there and func in ANSWERS:
            return ANSWERS[func]
        if there and func in TO_ARRAY:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func in TRANSFERS:
            result = _transfer(func, args, kwargs, there)
            self._count(there, isinstance(result, OnDevice))
            return result
        if func is torch.Tensor.copy_:
            self._count(isinstance(args[1], OnDevice), isinstance(args[0], OnDevice))
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
                        placed = tensor.detach().as_subclass(OnDevice)
                        is_weight = isinstance(tensor, torch.nn.Parameter)
                        group[name] = torch.nn.Parameter(placed, tensor.requires_grad) if is_weight else placed
    return module


@contextmanager
def no_host_waits() -> Iterator[Counter[str]]:
    """Within the stand-in: what the host would wait for raises :class:`HostWaitsError`, also in the backward pass.

    Copies between host and device that need no waiting are counted as ``uploads`` and ``downloads``, and moments that the host chose
    to wait for as ``waits``.
    """
    _Mode.strict = True
    _Mode.copies = Counter()
    try:
        with _NoReads():
            yield _Mode.copies
    finally:
        _Mode.strict, _Mode.copies = False, Counter()


def _synchronize(device: Any = None) -> None:
    if _Mode.strict:
        raise HostWaitsError("torch.cuda.synchronize")


@contextmanager
def stand_in_device(patch: Callable[[object, str, object], None], *, learning: bool = False) -> Iterator[str]:
    """While this lasts, the device it names exists; ``patch`` is pytest's ``monkeypatch.setattr``.

    With ``learning`` there are gradients.
    """
    patch(torch.cuda, "is_available", lambda: True)
    patch(torch.cuda, "device_count", lambda: 1)
    patch(torch.cuda, "mem_get_info", lambda device=None: (8 << 30, 8 << 30))
    patch(torch.cuda, "synchronize", _synchronize)
    patch(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    for stand_in in (Event, Stream, CUDAGraph):
        patch(torch.cuda, stand_in.__name__, stand_in)
    patch(torch.cuda, "current_stream", lambda device=None: Stream())
    patch(torch.cuda, "stream", lambda stream: nullcontext())
    patch(torch.cuda, "graph", lambda graph: _Recorder(graph))
    grouped = torch._C._group_tensors_by_device_and_dtype

    def group(lists: Any, *args: Any) -> Any:
        there = any(isinstance(item, OnDevice) for items in lists for item in items)
        return {(DEVICE if there else d, kind): value for (d, kind), value in grouped(lists, *args).items()}

    patch(torch._C, "_group_tensors_by_device_and_dtype", group)
    patch(torch.nn.Module, "to", _module_to)
    with torch.set_grad_enabled(learning), _Mode():
        yield "cuda"
