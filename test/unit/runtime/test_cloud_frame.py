# SPDX-License-Identifier: Apache-2.0
"""Clouds far from the map's origin, as at UTM coordinates, where float32 has steps of half a metre."""

import numpy as np
import pytest

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages.decode import decode_point_cloud
from occupancy_nn_ros.messages.names import MARKER_ARRAY
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.runtime.cloud_frame import cloud_frame
from occupancy_nn_ros.runtime.map_source import MapSource
from occupancy_nn_ros.runtime.outputs import OUTPUTS
from occupancy_nn_ros.values import LatticeWindow, MapView

UTM = (500_000.0, 4_649_776.0, 300.0)
TURNED = (0.0, 0.0, np.sin(0.4), np.cos(0.4))


def view(position, rng):
    """A window of random states around a robot that is turned by 46 degrees."""
    origin = tuple(int(np.floor(v / 0.2)) - 10 for v in position)
    states = rng.integers(-1, 2, (20, 20, 20)).astype(np.int8)
    pose = make_transform(position, TURNED)
    zeros = np.zeros(states.shape, np.uint8)
    return MapView(1, "map", LatticeWindow(0.2, origin, states.shape), pose, states, states.astype(np.float32), zeros)


def sent(name, map_, *settings):
    (topic,) = [topic for topic in OUTPUTS if topic.name == name]
    return topic.encode(MapSource(map_, load_config([], ["base_frame=robot", *settings])))


def occupied_centers(map_):
    return (np.argwhere(map_.state == 1) + map_.window.origin + 0.5) * 0.2


@pytest.mark.parametrize("position", [(0.0, 0.0, 0.0), (5000.0, -5000.0, 20.0)])
def test_near_the_origin_clouds_are_in_the_maps_frame(position, rng):
    map_ = view(position, rng)
    header, points = decode_point_cloud(sent("occupied_voxels", map_))
    assert header.frame_id == "map"
    np.testing.assert_allclose(points, occupied_centers(map_), atol=0.0005)


@pytest.mark.parametrize("position", [UTM, (17_000.0, 0.0, 0.0), (0.0, -4e6, 0.0)])
def test_far_from_it_they_are_in_the_robots_frame_and_exact(position, rng):
    map_ = view(position, rng)
    for name in ("occupied_voxels", "distance_field"):
        header, points = decode_point_cloud(sent(name, map_))
        assert (header.frame_id, header.stamp_ns) == ("robot", 1)
        assert np.abs(points[:, :2]).max() < 10
        back = points.astype(np.float64) @ map_.T_map_base[:3, :3].T + map_.T_map_base[:3, 3]
        if name == "occupied_voxels":
            np.testing.assert_allclose(back, occupied_centers(map_), atol=1e-5)
        else:  # centres of cells of the lattice
            offsets = back[:, :2] / 0.2 - 0.5
            np.testing.assert_allclose(offsets, np.round(offsets), atol=1e-4)


def test_markers_hold_doubles_and_stay_in_the_map(rng):
    map_ = view(UTM, rng)
    everything = ["outputs.markers_min_height_m=-50", "outputs.markers_max_height_m=50"]
    (marker,) = deserialize(MARKER_ARRAY, sent("markers", map_, *everything)).markers
    assert marker.header.frame_id == "map"
    points = np.array([(p.x, p.y, p.z) for p in marker.points])
    np.testing.assert_allclose(points, occupied_centers(map_), atol=1e-6)


def test_the_limit_is_a_millimetre(rng):
    assert cloud_frame(view((16_000.0, 0, 0), rng), "robot").frame_id == "map"
    assert cloud_frame(view((17_000.0, 0, 0), rng), "robot").frame_id == "robot"
