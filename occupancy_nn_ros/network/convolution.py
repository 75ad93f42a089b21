# SPDX-License-Identifier: Apache-2.0
"""Convolutions of volumes, on a CPU as those of slices.

There torch convolves a single volume seven times slower than its slices. All channels of a place lie together, which is what its
convolutions work in: nothing is moved between them.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from occupancy_nn_ros.network.encoder import norm
from occupancy_nn_ros.network.precision import shortened


def channels_beside(*volumes: Tensor) -> Tensor:
    """Volumes (V, C, D, h, w) as one with the channels of all, those of a place together in memory."""
    return torch.cat([volume.permute(0, 2, 3, 4, 1) for volume in volumes], dim=-1).permute(0, 4, 1, 2, 3)


class Conv3d(nn.Conv3d):
    """3x3x3 convolution that keeps the size."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, volumes: Tensor) -> Tensor:
        """(V, inputs, D, h, w) to (V, outputs, D, h, w)."""
        if len(volumes) == 1 and volumes.device.type == "cpu":
            return self._by_slices(volumes)
        convolved: Tensor = super().forward(volumes)
        return convolved

    def _by_slices(self, volume: Tensor) -> Tensor:
        """(1, inputs, D, h, w), fastest where it is in memory as (D, h, w, inputs), to the same of outputs."""
        slices = shortened(volume[0].permute(1, 0, 2, 3))
        few = 3 * self.out_channels <= self.in_channels
        total = self._layers_added(slices) if few else self._neighbours_beside(slices)
        if self.bias is not None:
            total = total + self.bias[:, None, None]
        return total.transpose(0, 1)[None]

    def _neighbours_beside(self, slices: Tensor) -> Tensor:
        """Slices (D, inputs, h, w) with those before and after as further channels, at once."""
        padded = functional.pad(slices.permute(0, 2, 3, 1), (0, 0) * 3 + (1, 1))
        beside = torch.cat([padded[:-2], padded[1:-1], padded[2:]], dim=-1).permute(0, 3, 1, 2)
        kernel = self.weight.permute(0, 2, 1, 3, 4).flatten(1, 2)
        return functional.conv2d(beside, kernel, padding=1)

    def _layers_added(self, slices: Tensor) -> Tensor:
        """Each slice (D, inputs, h, w) by the three layers of the kernel, then the layers' shifted sum: less where outputs are few."""
        kernel = self.weight.permute(2, 0, 1, 3, 4).flatten(0, 1)
        layers = functional.conv2d(slices, kernel, padding=1)
        before, here, after = layers.view(len(layers), 3, self.out_channels, *layers.shape[-2:]).unbind(1)
        later = functional.pad(before[:-1], (0, 0, 0, 0, 0, 0, 1, 0))
        return here + later + functional.pad(after[1:], (0, 0, 0, 0, 0, 0, 0, 1))


class Conv3dBlock(nn.Sequential):
    """3x3x3 convolution, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(Conv3d(inputs, outputs, bias=False), norm(outputs), nn.ReLU(inplace=True))

    def forward(self, volumes: Tensor) -> Tensor:
        """(V, inputs, D, h, w) to (V, outputs, D, h, w)."""
        convolved, group_norm = self[0](volumes), cast(nn.GroupNorm, self[1])
        plain = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if plain and len(volumes) == 1 and volumes.device.type == "cpu":
            return normalize_volume(convolved, group_norm)
        return functional.relu(group_norm(convolved))


def normalize_volume(volume: Tensor, group_norm: nn.GroupNorm) -> Tensor:
    """Group norm and ReLU of (1, C, D, h, w) that is in memory as (D, h, w, C); torch's own moves it, and counts it slowly."""
    rows = volume[0].permute(1, 2, 3, 0).float()
    groups = rows.reshape(-1, group_norm.num_groups, rows.shape[-1] // group_norm.num_groups)
    mean = groups.mean(dim=(0, 2))
    variance = (groups.square().mean(dim=(0, 2)) - mean.square()).clamp(min=0)
    scale = group_norm.weight.view(groups.shape[1:]) * torch.rsqrt(variance + group_norm.eps)[:, None]
    shift = group_norm.bias.view(groups.shape[1:]) - mean[:, None] * scale
    normalized = torch.relu_(torch.addcmul(shift.flatten(), rows, scale.flatten()))
    return normalized.to(volume.dtype).permute(3, 0, 1, 2)[None]
