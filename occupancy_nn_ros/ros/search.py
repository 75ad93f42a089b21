# SPDX-License-Identifier: Apache-2.0
"""Which sensors and transforms of the ROS graph are this node's: looked for until the graph shows the same for a while."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from occupancy_nn_ros.camera_settings import check_enough
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.ros.context import NodeContext
from occupancy_nn_ros.ros.encodings import Encodings, worth_asking
from occupancy_nn_ros.ros.graph import published_topics, topics_of
from occupancy_nn_ros.ros.topic_names import topics_named
from occupancy_nn_ros.runtime.discovery import SensorStream, discover_sensors, left_out_cameras, wanted_types
from occupancy_nn_ros.runtime.namespaces import other_robots, search_rings
from occupancy_nn_ros.runtime.pose_topics import name_tf_topics, own_transforms
from occupancy_nn_ros.runtime.topic_names import camera_key

SENSOR_WORDS = {"network": "camera", "depth": "depth camera", "lidar": "LiDAR"}
STEADY_LOOKS = 3
"""The graph must show the same cameras this often in a row before they are taken: they do not appear all at once."""
ENCODING_LOOKS = 5
"""So many looks are waited for first images; after so many more since the first of all, a topic without one is silent."""
PATIENT_LOOKS = 10
"""So many looks find nothing before the search goes beyond the node's namespace: its own drivers may only be slow."""
TF_LOOKS = 6
"""So many looks find nobody who publishes /tf before the transforms of one robot are taken for it."""


class SensorSearch:
    """Looks at the graph whenever it is told to.

    Attributes:
        encodings: of the image topics, as far as they are known.
        obstacle: why no sensor is found yet, worded for people; empty once they are.
        config: the settings, with the names of the graph.
    """

    def __init__(self, context: NodeContext, config: Config) -> None:
        """Nothing was looked at yet."""
        self.context, self.config = context, config
        self.encodings = Encodings(context.ros)
        self.obstacle = "looking for cameras"
        self._seen: tuple[SensorStream, ...] = ()
        self._looks = self._empty_looks = self._all_looks = self._tf_looks = 0
        self._first_heard: int | None = None
        self._ring = 0
        self._known: tuple[int, frozenset[str]] = (0, frozenset())

    def look(self) -> tuple[SensorStream, ...] | None:
        """Look once more; the sensors once it is certain enough which they are."""
        self._count()
        try:
            sensors = self.discover(topics_of(self.context.ros))
        except ConfigError as error:
            self.obstacle, self._looks = str(error), 0
            self._empty_looks += 1
            return None
        if self._ring and sensors != self._seen:
            where = ", ".join(sensor.topic for sensor in sensors)
            text = f"no sensors in {self.context.ros.get_namespace()}; taking those elsewhere: {where}"
            self.context.log.warning(text)
        self._looks = self._looks + 1 if sensors == self._seen else 1
        self._seen = sensors
        if not self.config.cameras:
            is_asking = self.encodings.missing and self._all_looks < ENCODING_LOOKS
            if self._looks < STEADY_LOOKS or is_asking:
                return None
        self.obstacle = ""
        self.encodings.elsewhere = frozenset(sensor.topic for sensor in sensors)
        self.encodings.leave_elsewhere()
        return sensors

    def has_news(self) -> bool:
        """Whether more is known of the images than at the last call."""
        before, self._known = self._known, (len(self.encodings.known), self._silent())
        return self._known != before

    def is_outdated(self, sensors: tuple[SensorStream, ...]) -> bool:
        """Whether images that have come since say that others should have been taken."""
        try:
            return self.discover(topics_of(self.context.ros)) != sensors
        except ConfigError:
            return True

    def late(self, sensors: tuple[SensorStream, ...]) -> list[str]:
        """Topics of sensors that would be found now beside those that were taken; none where cameras are named."""
        if self.config.cameras:
            return []
        try:
            found = self.discover(topics_of(self.context.ros))
        except ConfigError:
            return []
        taken = {camera_key(sensor.topic) for sensor in sensors}
        topics = [sensor.topic for sensor in found if camera_key(sensor.topic) not in taken]
        return [topic for topic in topics if self.context.ros.count_publishers(topic)]

    def left_out(self) -> list[str]:
        """Published topics that look like cameras and have no camera_info, as others do."""
        rings = search_rings(topics_of(self.context.ros), self.context.ros.get_namespace(), topics_named(self.config))
        ring = rings[min(self._ring, len(rings) - 1)]
        topics = left_out_cameras(self.config, ring, self.encodings.known, self._silent())
        return [topic for topic in topics if self.context.ros.count_publishers(topic)]

    def look_for_transforms(self, sensors: tuple[SensorStream, ...], config: Config) -> Config:
        """The settings with the names of the transforms' topics, which change where nobody publishes the usual ones for a while.

        Args:
            sensors: whose robot it is.
            config: with the names that hold now.
        """
        self._count()
        usable = own_transforms(published_topics(self.context.ros), sensors)
        named = name_tf_topics(self.config, usable, sensors)
        found = replace(config, tf_topic=named.tf_topic, tf_static_topic=named.tf_static_topic)
        self._tf_looks = 0 if found == config else self._tf_looks + 1
        return found if self._tf_looks >= TF_LOOKS else config

    def begin_anew(self) -> None:
        """What was found does not hold: look again, with what is known of the images by now."""
        self._looks = self._tf_looks = 0
        self.encodings.is_open, self.encodings.elsewhere = True, frozenset()

    def discover(self, topics: Mapping[str, str]) -> tuple[SensorStream, ...]:
        """The sensors in the nearest ring of the graph that has some; further ones only when it has had none for a while.

        Raises:
            ConfigError: there are none, too few, or not those that are named.
        """
        rings = search_rings(topics, self.context.ros.get_namespace(), topics_named(self.config))
        self._ring = min(self._empty_looks // PATIENT_LOOKS, len(rings) - 1)
        ring = rings[self._ring]
        self.encodings.ask(worth_asking(self.config, ring))
        sensors = discover_sensors(self.config, ring, self.encodings.known, self._silent())
        if not sensors:
            raise ConfigError(self._nothing_found(topics))
        check_enough(self.config.sync.min_cameras, [sensor.name for sensor in sensors])
        return sensors

    def _count(self) -> None:
        self._all_looks += 1
        if self._first_heard is None and self.encodings.known:
            self._first_heard = self._all_looks

    def _silent(self) -> frozenset[str]:
        """Topics that bring nothing while others do; there is none as long as nothing comes at all."""
        is_judged = self._first_heard is not None and self._all_looks - self._first_heard >= ENCODING_LOOKS
        return self.encodings.missing if is_judged else frozenset()

    def _nothing_found(self, topics: Mapping[str, str]) -> str:
        source, namespace = self.config.source, self.context.ros.get_namespace()
        there = ", ".join(sorted(name for name, kind in topics.items() if kind in wanted_types(source)))
        text = f"no {SENSOR_WORDS[source]} topics found; candidates: {there or 'none'}"
        robots = other_robots(topics, namespace)
        return (
            f"{text}; topics of other robots ({', '.join(robots)}) are theirs: set this node's namespace"
            if robots
            else text
        )
