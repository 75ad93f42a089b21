# SPDX-License-Identifier: Apache-2.0
"""What topics show of a pipeline's map, whether it lies in the host's memory or on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.mapping.device_depth import still_there
from occupancy_nn_ros.mapping.moving import MovementTracker
from occupancy_nn_ros.runtime.device_source import DeviceCutter
from occupancy_nn_ros.runtime.map_source import MapSource
from occupancy_nn_ros.runtime.outputs import OutputTopic
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.values import PosedDepth


class MapShown:
    """Sources for topics, and what has to be remembered between them.

    Attributes:
        tracker: what was seen before, to tell what moves.
    """

    def __init__(self) -> None:
        """Nothing was shown yet."""
        self.tracker = MovementTracker()
        self._cutter = DeviceCutter()

    @property
    def left_out(self) -> int:
        """Predicted voxels that a GPU left out so far because they were not finite, as of the last source."""
        return self._cutter.left_out

    def source(
        self, pipeline: OccupancyPipeline, config: Config, frame_id: str, topics: Sequence[OutputTopic],
        depths: Sequence[PosedDepth] = (),
    ) -> MapSource | None:  # fmt: skip
        """What topics show of the map, None if that is nothing. From a GPU depth images come along, in one download.

        Args:
            pipeline: has the map.
            config: how it is shown.
            frame_id: the map frame's name.
            topics: that are due.
            depths: images that are due.
        """
        needs = {need for topic in topics for need in topic.needs}
        looks = pipeline.looks if "looks" in needs else ()
        shown = {id(depth): depth for depth in (*depths, *looks) if isinstance(depth, PosedDepth)}
        there = still_there(shown.values())
        if pipeline.map.device.type == "cpu" or not (topics or there):
            view = pipeline.view(frame_id) if topics else None
            source = None if view is None else MapSource(view, config)
        else:
            content = pipeline.content(frame_id)
            source = None if content is None else self._cutter.cut(content, config, needs - {"looks"}, there)
        if source is not None:
            source.tracker, source.looks = self.tracker, looks
        return source
