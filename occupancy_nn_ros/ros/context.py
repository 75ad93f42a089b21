# SPDX-License-Identifier: Apache-2.0
"""What the parts of the node share: the ROS node, the settings in force, the session and the thread that owns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.ros.worker import Worker
from occupancy_nn_ros.runtime.intake import RawKeyframe
from occupancy_nn_ros.runtime.session import MappingSession


@dataclass
class NodeContext:
    """Written by the executor's thread alone.

    Attributes:
        ros: the ROS node, on which topics, services and timers are made.
        config: the settings in force.
        session: network and map, None while unconfigured; only the worker changes what is in it.
        worker: the thread in which they run, None while unconfigured.
        is_paused: whether keyframes are left out on request.
    """

    ros: Any
    config: Config
    session: MappingSession | None = None
    worker: Worker[RawKeyframe] | None = None
    is_paused: bool = False

    @property
    def log(self) -> Any:
        """The node's logger."""
        return self.ros.get_logger()

    def now_ns(self) -> int:
        """The node's clock, which is the simulated one with ``use_sim_time``."""
        return int(self.ros.get_clock().now().nanoseconds)
