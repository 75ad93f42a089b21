# SPDX-License-Identifier: Apache-2.0
"""Rectification where the network is: raw pixels become pinhole pictures by two matrix products and one lookup."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from occupancy_nn_ros.geometry.cameras import MASKED_GREY, Rectifier
from occupancy_nn_ros.network.masking import HiddenCells
from occupancy_nn_ros.network.precision import in_float32
from occupancy_nn_ros.values import Float32Array


class DeviceRectifier:
    """The twin of a :class:`~occupancy_nn_ros.geometry.cameras.Rectifier` on a device; grey levels differ by rounding.

    Attributes:
        K: (3, 3) float32 of the pinhole images.
        hidden: what the camera's mask leaves of them, None if it has no mask.
    """

    def __init__(self, rectifier: Rectifier, device: torch.device) -> None:
        """Take the rectifier's tables to the device."""
        model, (width, height) = rectifier.model, rectifier.reduced
        self.K = torch.from_numpy(rectifier.K).float().to(device)
        self._is_reduced = (width, height) != (model.width, model.height)
        self._rows = torch.from_numpy(area_weights(model.height, height)).to(device)
        self._columns = torch.from_numpy(area_weights(model.width, width)).to(device)
        place = (rectifier.source_px + 0.5) / np.array([width, height]) * 2 - 1
        self._place = torch.from_numpy(place.astype(np.float32)).to(device)[None]
        self._mask = torch.from_numpy(rectifier.mask).to(device)
        masked = np.zeros_like(rectifier.mask) if rectifier.masked is None else rectifier.masked
        self._fill = torch.from_numpy(masked.astype(np.float32) * MASKED_GREY).to(device)
        self.hidden = None if rectifier.masked is None else HiddenCells.of(rectifier.masked, device)

    @in_float32
    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (H, W, 3) uint8 of the camera as a pinhole image (H', W', 3) uint8, black outside the field of view."""
        image = pixels.permute(2, 0, 1).float()
        if self._is_reduced:
            image = (self._rows @ image @ self._columns.T).round()
        looked_up = functional.grid_sample(image[None], self._place, padding_mode="border", align_corners=False)[0]
        return torch.where(self._mask, looked_up.round(), self._fill).permute(1, 2, 0).to(torch.uint8)


def area_weights(count: int, fewer: int) -> Float32Array:
    """Weights (fewer, count) by which each of ``fewer`` equal parts of a line averages its ``count`` cells."""
    edges = np.arange(fewer + 1) * (count / fewer)
    cells = np.arange(count)
    low, high = np.maximum(edges[:-1, None], cells), np.minimum(edges[1:, None], cells + 1)
    return np.asarray(np.clip(high - low, 0, None) * (fewer / count), dtype=np.float32)
