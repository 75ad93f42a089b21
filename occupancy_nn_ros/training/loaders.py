# SPDX-License-Identifier: Apache-2.0
"""Samples read ahead of the step that learns from them, by a thread or by processes; in order, whoever is done first."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import cv2
import torch

from occupancy_nn_ros.training.dataset import Sample, Samples

Packed = dict[str, Any]

_source: Samples | None = None
"""What a loader process draws from."""


@contextmanager
def read_ahead(source: Samples, numbers: Iterable[int], processes: int) -> Iterator[Iterator[Sample]]:
    """The samples of these numbers, in their order, while the next ones are read.

    What a sample is does not depend on who reads it.

    Args:
        source: where they come from; picklable if there are processes.
        numbers: which; as many as twice the processes are taken in advance.
        processes: that read; 0 for a thread.

    Raises:
        TrainingError: from the iterator, a sample cannot be read.
    """
    pool: Executor
    if processes:
        spawn = get_context("spawn")
        pool = ProcessPoolExecutor(processes, mp_context=spawn, initializer=_begin, initargs=(source,))
        packed = _in_order(pool, _read_packed, numbers, 2 * processes)
        samples: Iterator[Sample] = (_unpack(item) for item in packed)
    else:
        pool = ThreadPoolExecutor(1)
        samples = _in_order(pool, source.sample, numbers, 1)
    try:
        yield samples
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: Executor, read: Callable[[int], Any], numbers: Iterable[int], ahead: int) -> Iterator[Any]:
    pending: deque[Future[Any]] = deque()
    for number in numbers:
        pending.append(pool.submit(read, number))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _begin(source: Samples) -> None:
    """Prepare a loader process: there is one for each core, so that each keeps to one."""
    global _source
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _source = source


def _read_packed(number: int) -> Packed:
    """A sample as arrays, which travel through a pipe; tensors would need shared memory, of which containers have little."""
    if _source is None:
        raise RuntimeError("the loader process was not told what to read")
    sample = _source.sample(number)
    values = {item.name: getattr(sample, item.name) for item in dataclasses.fields(sample)}
    return {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def _unpack(packed: Packed) -> Sample:
    tensors = {k: torch.from_numpy(v) for k, v in packed.items() if hasattr(v, "__array_interface__")}
    return Sample(**{**packed, **tensors})
