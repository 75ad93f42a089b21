# SPDX-License-Identifier: Apache-2.0
"""What a training run leaves for people to look at: curves, and pictures of what the network makes of a sample."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch

from occupancy_nn_ros.errors import MissingDependencyError
from occupancy_nn_ros.training.dataset import Sample
from occupancy_nn_ros.values import UInt8Array
from occupancy_nn_ros.visualization.colors import depth_colors


class Journal:
    """Appends curves to ``curve.jsonl`` and, if asked to, to TensorBoard; a context manager."""

    def __init__(self, folder: Path, *, tensorboard: bool) -> None:
        """Open the files.

        Raises:
            MissingDependencyError: TensorBoard is asked for and not installed.
        """
        self._curve = (folder / "curve.jsonl").open("a", encoding="utf-8")
        self._board: Any = _summary_writer(folder / "tensorboard") if tensorboard else None

    def __enter__(self) -> Journal:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self._curve.close()
        if self._board is not None:
            self._board.close()

    def add(self, step: int, values: dict[str, float]) -> None:
        """One point of every curve."""
        self._curve.write(json.dumps({"step": step, **values}) + "\n")
        self._curve.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def picture(self, step: int, picture: UInt8Array) -> None:
        """A picture (H, W, 3) for TensorBoard."""
        if self._board is not None:
            self._board.add_image("sample", picture, step, dataformats="HWC")


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingDependencyError("TensorBoard curves need it installed: pip install tensorboard") from None
    return SummaryWriter(str(folder))


def draw_sample(sample: Sample, predicted_m: torch.Tensor) -> UInt8Array:
    """One column for each current view: its image, the depth of the labels, and the predicted depth.

    Args:
        sample: what the network was shown.
        predicted_m: (V, h, w) depth.

    Returns:
        (3 H, V W, 3) uint8 RGB; depths run from red (near) to blue (far), black where labels do not tell.
    """
    images = sample.images[: sample.views].numpy()
    height, width = images.shape[1:3]
    rows = [images, depth_colors(sample.depth_m.numpy()), depth_colors(predicted_m.cpu().numpy())]
    scaled = [[cv2.resize(tile, (width, height), interpolation=cv2.INTER_NEAREST) for tile in row] for row in rows]
    return np.asarray(np.concatenate([np.concatenate(row, axis=1) for row in scaled]), dtype=np.uint8)
