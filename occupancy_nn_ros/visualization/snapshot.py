# SPDX-License-Identifier: Apache-2.0
"""What a viewer is shown of one keyframe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from occupancy_nn_ros.values import MapView, PosedDepth, PosedImage

CEILING_M = 1.8
"""Voxels further above the robot's base are shown apart, or they would hide what is below them."""


@dataclass(frozen=True)
class Snapshot:
    """One keyframe and the map after it.

    Attributes:
        images: the cameras' pictures.
        depths: predicted depth of the same cameras where it is known; may be empty.
        view: the map.
        latency_ms: milliseconds by stage of this map update.
        dropped: frames and sets that were not used since start, by reason.
    """

    images: tuple[PosedImage, ...]
    depths: tuple[PosedDepth, ...]
    view: MapView
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)


class Viewer(Protocol):
    """Whoever shows snapshots."""

    def wants(self) -> bool:
        """Whether a snapshot would be shown now; making one costs a copy of the map."""

    def offer(self, snapshot: Snapshot) -> None:
        """Show a snapshot, without making the caller wait for the viewer."""
