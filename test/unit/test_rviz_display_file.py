# SPDX-License-Identifier: Apache-2.0
"""RViz shows what the node sends: topics, types, QoS and window of the display file."""

from pathlib import Path

import pytest
import yaml

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.messages.names import IMAGE, MARKER_ARRAY, OCCUPANCY_GRID, POINT_CLOUD
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.outputs import output_topics

FILE = Path(__file__).parents[2] / "config" / "rviz" / "occupancy.rviz"
SHOWN = yaml.safe_load(FILE.read_text(encoding="utf-8"))
DISPLAYS = {display["Name"]: display for display in SHOWN["Visualization Manager"]["Displays"]}
OWN = {
    name: display
    for name, display in DISPLAYS.items()
    if display.get("Topic", {}).get("Value", "").startswith("/occupancy_nn/")
}
KINDS = {"Map": OCCUPANCY_GRID, "MarkerArray": MARKER_ARRAY, "PointCloud2": POINT_CLOUD, "Image": IMAGE}
ROBOTS = [["front"], ["rear_left", "0"]]


def outputs(cameras):
    sensors = [SensorStream(name, f"/{name}", IMAGE) for name in cameras]
    return {f"/occupancy_nn/{topic.name}": topic for topic in output_topics(Config(), sensors)}


def test_map_and_cameras_are_seen_at_first_sight():
    assert {name for name in OWN if DISPLAYS[name]["Enabled"]} == {"Occupancy grid", "Voxels", "Cameras"}


@pytest.mark.parametrize("cameras", ROBOTS)
@pytest.mark.parametrize("name", OWN)
def test_each_display_shows_a_topic_of_any_robots_node(name, cameras):
    shown = OWN[name]["Topic"]
    sent = outputs(cameras)[shown["Value"]]
    assert sent.msgtype == KINDS[OWN[name]["Class"].split("/")[1]]
    assert shown["Reliability Policy"] == "Reliable"  # as all outputs are sent
    # A subscriber that asks for transient local gets nothing from a volatile publisher; one that does not, no last message.
    assert shown["Durability Policy"] == ("Transient Local" if sent.is_latched else "Volatile")


@pytest.mark.parametrize("name", DISPLAYS)
def test_a_display_is_on_where_it_says_so_twice(name):
    assert DISPLAYS[name]["Enabled"] is DISPLAYS[name]["Value"]


def test_the_window_gives_every_dock_a_place():
    """A dock that the saved state does not name comes up at the left, as wide as it likes."""
    docks = {panel["Name"] for panel in SHOWN["Panels"]}
    docks |= {name for name, display in DISPLAYS.items() if display["Class"].split("/")[1] in ("Image", "Camera")}
    window = SHOWN["Window Geometry"]
    state = bytes.fromhex(str(window["QMainWindow State"]))
    assert {name for name in docks if name.encode("utf-16-be") not in state} == set()
    assert {name for name, value in window.items() if isinstance(value, dict)} == docks


def test_fixed_frame_and_view_are_those_of_the_settings():
    manager = SHOWN["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == Config().map_frame
    assert manager["Views"]["Current"]["Target Frame"] == Config().base_frame == DISPLAYS["Robot"]["Reference Frame"]
