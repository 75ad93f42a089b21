# SPDX-License-Identifier: Apache-2.0
"""Work of fixed shapes recorded once on a GPU and replayed by one launch (CUDA graphs)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

WARM_UP = 3
"""Calls before recording, which choose algorithms and take memory."""


def can_capture(device: torch.device) -> bool:
    """Whether a device replays recorded work."""
    return device.type == "cuda"


class Captured:
    """A function of tensors, recorded for the shapes of the first inputs.

    The function must not look at values: which branch it takes, and every shape in it, follow from shapes alone. What it gives
    lies in the same memory after every call, so what is to be kept has to be copied.
    """

    def __init__(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
        """Record ``function(*inputs)``.

        Raises:
            RuntimeError: it does something that cannot be recorded.
        """
        self.shapes = [tensor.shape for tensor in inputs]
        self._inputs = [tensor.clone() for tensor in inputs]
        apart = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        apart.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(apart):
            for _ in range(WARM_UP):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(apart)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Any:
        """What the function gives for these inputs, in memory of this object.

        Raises:
            ValueError: inputs of other shapes than those it was recorded for.
        """
        shapes = [tensor.shape for tensor in inputs]
        if shapes != self.shapes:
            raise ValueError(f"inputs are {[tuple(s) for s in shapes]}, expected {[tuple(s) for s in self.shapes]}")
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._outputs


def copied(outputs: Any) -> Any:
    """The same nest of tensors in memory of its own."""
    return tree_map(lambda item: item.clone() if isinstance(item, Tensor) else item, outputs)
