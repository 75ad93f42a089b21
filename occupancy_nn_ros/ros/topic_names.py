# SPDX-License-Identifier: Apache-2.0
"""Topics as users write them, relative or remapped, and as the graph has them."""

from __future__ import annotations

import dataclasses
from typing import Any

from occupancy_nn_ros.camera_settings import CameraConfig
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import ConfigError


class TopicNames:
    """Resolves the inputs' names as the node would, and remembers how they were written.

    Who subscribes must give the name as it was written: rcl applies its remapping rules to it, and would apply them twice to a
    name that is resolved already.
    """

    def __init__(self, node: Any) -> None:
        """Nothing was resolved yet."""
        self._node = node
        self._written: dict[str, str] = {}

    def resolve(self, name: str) -> str:
        """The name in the graph; empty stays empty.

        Raises:
            ConfigError: not a topic name.
        """
        if not name:
            return ""
        try:
            found = str(self._node.resolve_topic_name(name))
        except Exception as error:  # rclpy has a class for each thing that a name can have wrong
            raise ConfigError(f"'{name}' is not a topic name: {error}") from None
        self._written.setdefault(found, name)
        return found

    def written(self, resolved: str) -> str:
        """What to subscribe to so that it becomes this name."""
        return self._written.get(resolved, resolved)

    def in_config(self, config: Config) -> Config:
        """The configuration with the names of the graph.

        Raises:
            ConfigError: one is not a topic name.
        """
        cameras = {name: self._in_camera(camera) for name, camera in config.cameras.items()}
        return dataclasses.replace(
            config,
            cameras=cameras,
            pose_topic=self.resolve(config.pose_topic),
            tf_topic=self.resolve(config.tf_topic),
            tf_static_topic=self.resolve(config.tf_static_topic),
        )

    def _in_camera(self, camera: CameraConfig) -> CameraConfig:
        info = self.resolve(camera.camera_info_topic)
        if camera.image_topic and not info:
            beside = f"{camera.image_topic.rpartition('/')[0]}/camera_info"
            is_remapped = self._node.resolve_topic_name(beside) != self._node.resolve_topic_name(
                beside, only_expand=True
            )
            info = self.resolve(beside) if is_remapped else ""
        return dataclasses.replace(camera, image_topic=self.resolve(camera.image_topic), camera_info_topic=info)


def topics_named(config: Config) -> set[str]:
    """The data topics that a configuration names."""
    topics = {topic for camera in config.cameras.values() for topic in (camera.image_topic, camera.camera_info_topic)}
    return topics - {""}
