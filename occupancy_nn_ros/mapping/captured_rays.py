# SPDX-License-Identifier: Apache-2.0
"""Depth images that a network left on a GPU into a map there: recorded once for a rig, and replayed by one launch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from occupancy_nn_ros.compute.capture import Captured
from occupancy_nn_ros.mapping.device_depth import DeviceDepth
from occupancy_nn_ros.mapping.ray_device import integrate_pixels, storage_shift
from occupancy_nn_ros.mapping.ray_update import RayRule
from occupancy_nn_ros.mapping.rolling_map import RollingMap

logger = logging.getLogger(__name__)

MOST_LAYOUTS = 8
"""Rigs that are kept recorded; one has a few, as cameras drop out."""

Rig = Sequence[tuple[DeviceDepth, Tensor, RayRule]]
"""Depth images, the tangents (H * W, 2) of their pixels, and what their marks do."""


def integrate_captured(grid: RollingMap, rig: Rig, graze_share: float) -> bool:
    """Integrate depth images one after the other; False, and nothing done, where that cannot be recorded.

    Args:
        grid: the map, changed in place.
        rig: images of one size, with their poses on the device.
        graze_share: of a ray before its end where it grazes.
    """
    rules = tuple(rule._replace(now_ms=0) for _, _, rule in rig)
    models = tuple(depth.model for depth, _, _ in rig)
    layout = models, rules, grid.window.shape, grid.window.voxel_size_m, grid.config.max_range_m, graze_share
    pixels = torch.stack([depth.pixels.to(torch.float32) for depth, _, _ in rig])
    poses = torch.stack([depth.pose for depth, _, _ in rig if depth.pose is not None])
    inputs = [pixels, poses, _numbers(grid, [rule.now_ms for _, _, rule in rig])]
    if layout not in grid.captured:
        if len(grid.captured) >= MOST_LAYOUTS:
            grid.captured.clear()
        tangents = [tangents for _, tangents, _ in rig]
        grid.captured[layout] = _capture(grid, _work(grid, tangents, rules, graze_share), inputs)
    captured = grid.captured[layout]
    if captured is not None:
        captured(*inputs)
    return captured is not None


def _numbers(grid: RollingMap, times_ms: Sequence[int]) -> Tensor:
    """What differs between keyframes (6 + V,) int64: the window's origin, where it is stored, and the images' times.

    Each is an argument of a launch, so that nothing has to be uploaded.
    """
    values = (*grid.window.origin, *storage_shift(grid), *times_ms)
    return torch.stack([torch.full((), value, dtype=torch.int64, device=grid.device) for value in values])


def _work(
    grid: RollingMap, tangents: Sequence[Tensor], rules: Sequence[RayRule], graze_share: float
) -> Callable[..., Any]:
    """A function of pixels (V, H, W), poses (V, 4, 4) in the map's frame, and :func:`_numbers`."""
    edge = grid.window.voxel_size_m

    def work(pixels: Tensor, poses: Tensor, numbers: Tensor) -> None:
        origin, shift = numbers[:3].double(), numbers[3:6]
        for n, rule in enumerate(rules):
            scaled = poses[n, :3] / edge
            pose = torch.cat([scaled[:, :3], scaled[:, 3:] - origin[:, None]], dim=1)
            timed: Any = rule._replace(now_ms=numbers[6 + n])  # type: ignore[arg-type]
            integrate_pixels(grid, (pixels[n].reshape(-1), tangents[n]), pose, graze_share, timed, shift)

    return work


def _capture(grid: RollingMap, work: Callable[..., Any], inputs: Sequence[Tensor]) -> Captured | None:
    """Recorded work; what the map holds is put back, since recording does the work a few times."""
    kept = grid.log_odds.clone(), grid.seen_ms.clone()
    try:
        return Captured(work, inputs)
    except RuntimeError as error:
        logger.warning("the rays of predicted depth are not recorded, and take longer so: %s", error)
        return None
    finally:
        grid.log_odds.copy_(kept[0])
        grid.seen_ms.copy_(kept[1])
