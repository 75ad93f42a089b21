# SPDX-License-Identifier: Apache-2.0
"""Where what is meant for a GPU runs: on the GPU, or in a rehearsal without one on the stand-in of the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def place() -> Iterator[str]:
    """Name of the device to compare with the CPU: the GPU, or in a rehearsal without one a stand-in."""
    if torch.cuda.is_available():
        yield "cuda"
        return
    sys.path.insert(0, str(ROOT / "test" / "helpers"))
    from stand_in_device import stand_in_device

    put: list[tuple[object, str, object]] = []

    def patch(target: object, name: str, value: object) -> None:
        put.append((target, name, getattr(target, name)))
        setattr(target, name, value)

    try:
        with stand_in_device(patch) as name:
            yield name
    finally:
        for target, name, value in reversed(put):
            setattr(target, name, value)
