# SPDX-License-Identifier: Apache-2.0
"""What the parts of the node share: the ROS node, the settings in force, the session and the thread that owns it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Literal

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import StopRequested
from occupancy_nn_ros.ros.worker import Worker
from occupancy_nn_ros.runtime.raw_keyframe import RawKeyframe
from occupancy_nn_ros.runtime.session import MappingSession

Phase = Literal["unconfigured", "configuring", "inactive", "active"]


@dataclass
class NodeContext:
    """Written by the executor's thread, or by the one that configures and activates beside it at the start.

    Attributes:
        ros: the ROS node, on which topics, services and timers are made.
        config: the settings in force.
        session: network and map, None while unconfigured; only the worker changes what is in it.
        worker: the thread in which they run, None while unconfigured.
        is_paused: whether keyframes are left out on request.
        phase: ``unconfigured``, ``configuring``, ``inactive`` or ``active``.
        doing: what takes so long while configuring, worded for people.
        stopping: set once the process is to end.
    """

    ros: Any
    config: Config
    session: MappingSession | None = None
    worker: Worker[RawKeyframe] | None = None
    is_paused: bool = False
    phase: Phase = "unconfigured"
    doing: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)

    def check_stop(self) -> None:
        """Called between the steps of whatever takes long.

        Raises:
            StopRequested: the process is to end.
        """
        if self.stopping.is_set():
            raise StopRequested

    @property
    def log(self) -> Any:
        """The node's logger."""
        return self.ros.get_logger()

    def now_ns(self) -> int:
        """The node's clock, which is the simulated one with ``use_sim_time``."""
        return int(self.ros.get_clock().now().nanoseconds)
