# SPDX-License-Identifier: Apache-2.0
"""Context in space: a light network over a coarse, world-aligned volume around the robot.

Heights are channels of a 2D network (the FlashOcc idea, Yu et al. 2023), which makes whole-scene context affordable on
a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from occupancy_nn_ros.compute.compiled import use_kernels
from occupancy_nn_ros.network.encoder import ConvBlock, ResidualBlock, norm
from occupancy_nn_ros.network.lifting_kernels import look_up


class VolumeGrid(nn.Module):
    """The coarse lattice relative to a center.

    Attributes:
        cell_m: edge of a cell.
        shape: cells (X, Y, Z).
        low_m: lowest corner relative to the center, metres.
    """

    low: Tensor
    size: Tensor

    def __init__(self, cell_m: float, shape: tuple[int, int, int], low_m: tuple[float, float, float]) -> None:
        super().__init__()
        self.cell_m, self.shape, self.low_m = cell_m, shape, low_m
        self.register_buffer("low", torch.tensor(low_m), persistent=False)
        self.register_buffer("size", torch.tensor(shape) * cell_m, persistent=False)

    def points(self, center: Tensor) -> Tensor:
        """Cell centres (X * Y * Z, 3) in the frame of ``center`` (3,)."""
        axes = [
            low + (torch.arange(n, device=center.device, dtype=center.dtype) + 0.5) * self.cell_m
            for low, n in zip(self.low_m, self.shape, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3) + center

    def normalize(self, points: Tensor, center: Tensor) -> Tensor:
        """Positions (P, 3) of points as coordinates in [-1, 1] for sampling, ordered (z, y, x)."""
        return ((points - center - self.low) / self.size * 2 - 1).flip(-1)


class VolumeNetwork(nn.Module):
    """A small U-net over the bird's-eye view whose channels are (features, heights)."""

    def __init__(self, inputs: int, outputs: int, heights: int, width: int) -> None:
        super().__init__()
        self.outputs, self.heights = outputs, heights
        self.squeeze = nn.Sequential(nn.Conv2d(inputs * heights, width, 1, bias=False), norm(width), nn.ReLU())
        self.fine = ResidualBlock(width)
        self.middle = nn.Sequential(ConvBlock(width, width, stride=2), ResidualBlock(width))
        self.coarse = nn.Sequential(ConvBlock(width, width, stride=2), ResidualBlock(width), ResidualBlock(width))
        self.merge_middle = ConvBlock(2 * width, width)
        self.merge_fine = ConvBlock(2 * width, width)
        self.expand = nn.Conv2d(width, outputs * heights, 1)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) to (B, outputs, X, Y, Z)."""
        batch, channels, x, y, z = volume.shape
        flat = volume.permute(0, 1, 4, 2, 3).reshape(batch, channels * z, x, y)
        fine = self.fine(self.squeeze(flat))
        middle = self.middle(fine)
        coarse = functional.interpolate(self.coarse(middle), size=middle.shape[-2:], mode="nearest")
        middle = self.merge_middle(torch.cat([middle, coarse], dim=1))
        middle = functional.interpolate(middle, size=fine.shape[-2:], mode="nearest")
        out = self.expand(self.merge_fine(torch.cat([fine, middle], dim=1)))
        lifted: Tensor = out.reshape(batch, self.outputs, z, x, y).permute(0, 1, 3, 4, 2).contiguous()
        return lifted


def sample_volume(volume: Tensor, position: Tensor) -> Tensor:
    """Trilinear values (P, C) of one volume (C, X, Y, Z) at positions (P, 3) from :meth:`VolumeGrid.normalize`."""
    if not torch.is_grad_enabled() and use_kernels(volume.device) and not torch.compiler.is_compiling():
        cells = torch.tensor(volume.shape[1:]).flip(0)
        places = ((position + 1) * (cells * 0.5) - 0.5).flip(1).contiguous()
        out = position.new_empty(len(position), len(volume))
        look_up(volume.float().permute(1, 2, 3, 0).contiguous().numpy(), places.numpy(), out.numpy())
        return out
    sampled = functional.grid_sample(
        volume[None], position[None, None, None], padding_mode="border", align_corners=False
    )
    return sampled[0, :, 0, 0].T
