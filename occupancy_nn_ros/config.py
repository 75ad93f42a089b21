# SPDX-License-Identifier: Apache-2.0
"""The one definition of every setting: default, unit, range and meaning, for the live node and offline alike.

Frozen dataclasses whose fields are made by :func:`~occupancy_nn_ros.settings.setting`. Precedence is default, then YAML files in order,
then the command line or ROS parameters. ROS parameters and ``docs/parameters.md`` are generated from these classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from occupancy_nn_ros.camera_settings import CameraConfig, check_cameras, without_slash
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.parameter_files import settings_of
from occupancy_nn_ros.setting_conflicts import check_band, check_window
from occupancy_nn_ros.setting_groups import (
    GridConfig,
    KeyframeConfig,
    MapConfig,
    NetworkConfig,
    OutputConfig,
    RobotConfig,
    SyncConfig,
)
from occupancy_nn_ros.settings import (
    CheckedSettings,
    from_mapping,
    merge,
    parse_override,
    read_yaml,
    setting,
    settings_file,
)

__all__ = [
    "CameraConfig",
    "Config",
    "GridConfig",
    "KeyframeConfig",
    "MapConfig",
    "NetworkConfig",
    "OutputConfig",
    "RobotConfig",
    "SyncConfig",
    "load_config",
]


@dataclass(frozen=True)
class Config(CheckedSettings):
    """All settings of the node and of the offline player."""

    cameras: dict[str, CameraConfig] = field(
        default_factory=dict, metadata={"help": "Cameras by name; empty: discovered from topic types, names and TF."}
    )
    map_frame: str = setting("odom", "Fixed, gravity-aligned frame of the map.")
    base_frame: str = setting("base_link", "Frame of the robot.")
    pose_topic: str = setting("", "Topic of odometry or poses that places base_frame instead of TF; empty: TF.")
    pose_type: Literal[
        "nav_msgs/msg/Odometry",
        "geometry_msgs/msg/PoseStamped",
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        "geometry_msgs/msg/TransformStamped",
    ] = setting("nav_msgs/msg/Odometry", "Message type of pose_topic, where nobody publishes it as another of these.")
    tf_topic: str = setting("/tf", "Topic of moving transforms; a bag that has only one of another name gives that.")
    tf_static_topic: str = setting("/tf_static", "Topic of static transforms.")
    tf_source: Literal["auto", "tf2", "builtin"] = setting(
        "auto",
        "What keeps and interpolates the node's transforms: tf2_ros, or the tree that bags are played with too. auto: tf2_ros "
        "where it is installed.",
    )
    model: str = setting("nano", "Name under models/ or path of a .safetensors file.")
    source: Literal["network", "depth", "lidar"] = setting("network", "What the map is built from.")
    max_image_pixels: int = setting(33554432, "An image of more pixels is not decoded.", low=4096, high=1 << 28)
    max_memory_mib: int = setting(
        0,
        "Memory that the process may take: what can be cut is cut at the start, which is said; else it does not start. 0: no limit.",
        low=0,
        high=1 << 24,
    )
    voxel_size_m: float = setting(0.2, "Edge of a voxel.", low=0.01, high=2.0)
    map: MapConfig = field(default_factory=MapConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    robot: RobotConfig = field(default_factory=RobotConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    outputs: OutputConfig = field(default_factory=OutputConfig)

    def __post_init__(self) -> None:
        """Check, and name frames as tf2 does."""
        super().__post_init__()
        without_slash(self, "map_frame", "base_frame")
        for name in ("map_frame", "base_frame"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty, expected the name of a frame")
        if self.tf_topic == self.tf_static_topic:
            raise ConfigError(
                f"tf_topic and tf_static_topic are both {self.tf_topic}: what moves would be taken to stand still"
            )
        if self.pose_topic and self.pose_topic in (self.tf_topic, self.tf_static_topic):
            raise ConfigError(f"pose_topic is {self.pose_topic}, that of transforms, expected a topic of poses")
        check_cameras(self.cameras, self.sync.min_cameras)
        self._check_map()

    def _check_map(self) -> None:
        """Check that the window holds voxels, and the bands that are shown of it."""
        grid, outputs, low, high = self.grid, self.outputs, -self.map.below_m, self.map.above_m
        check_window(self.voxel_size_m, self.map.size_xy_m, high - low)
        check_band("outputs.markers_", (outputs.markers_min_height_m, outputs.markers_max_height_m), (low, high))
        if grid.reference == "ground":  # which may lie anywhere in the window
            low, high = low - high, high - low
        check_band("grid.", (grid.min_height_m, grid.max_height_m), (low, high))


def load_config(files: Iterable[Path] = (), overrides: Iterable[str] = ()) -> Config:
    """Default configuration, changed by YAML files in order, then by ``key.sub=value`` strings.

    A file may be a ROS parameter file. One that is not there is looked for among those of the package.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type or value out of range; names the key.
    """
    merged: dict[str, Any] = {}
    settings_names = [item.name for item in fields(Config)]
    for path in files:
        merge(merged, settings_of(read_yaml(settings_file(path)), str(path), settings_names))
    for text in overrides:
        merge(merged, parse_override(text))
    return from_mapping(Config, merged)
