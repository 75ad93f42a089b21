# SPDX-License-Identifier: Apache-2.0
"""Depth that is no depth in metres, beside a LiDAR and another depth camera: left out, counted and named, by player and doctor."""

import json
from dataclasses import replace

import numpy as np
import pytest
from box_room import MODEL, at, camera_at, depth_image, sweep

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.geometry.cameras import unproject
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.laser_scan import encode_laser_scan
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image, encode_point_cloud, encode_tf
from occupancy_nn_ros.runtime.player import plan_play, play_bag
from occupancy_nn_ros.values import StampedTransform

T0, STEP_NS, STEPS = 1_700_000_000_000_000_000, 500_000_000, 8
SMALL = replace(MODEL, width=80, height=60, K=np.array([[55.0, 0, 39.5], [0, 55, 29.5], [0, 0, 1]]))
MOUNTS = {"lidar": at(0, 0, 0.9), "front": camera_at(0.2, 0, 0.5, pitch=10), "side": camera_at(0.2, 0.2, 0.6, yaw=20)}
SCANNER = at(0.1, 0, 0.3)
TOPICS = {"lidar": "/lidar/points", "front": "/front/depth/image_rect_raw", "side": "/side/depth/image_rect_raw"}
PLACES = [at(0.15 * n, 0, 0, 4 * n) for n in range(STEPS)]
EXACT = {
    "lidar": [sweep(pose @ MOUNTS["lidar"], steps=360).points_m for pose in PLACES],
    **{name: [depth_image(pose @ MOUNTS[name], SMALL).depth_m for pose in PLACES] for name in ("front", "side")},
}


def counted(unit_m):
    return lambda z: np.clip(z / unit_m, 0, 65535).astype(np.uint16)


MILLIMETRES = counted(0.001)


def along_rays(z):
    v, u = np.mgrid[0 : SMALL.height, 0 : SMALL.width]
    tangents = unproject(SMALL, np.column_stack([u.ravel(), v.ravel()]))
    return (z * np.sqrt(1 + (tangents**2).sum(axis=1)).reshape(z.shape)).astype(np.float32)


def write_depth(writer, name, stamp_ns, stored, model):
    encoding = "16UC1" if stored.dtype == np.uint16 else "32FC1"
    info = encode_camera_info(stamp_ns, name, model)
    writer.write(f"/{name}/depth/camera_info", names.CAMERA_INFO, stamp_ns, info)
    writer.write(TOPICS[name], names.IMAGE, stamp_ns, encode_image(stamp_ns, name, stored, encoding))


@pytest.fixture
def bag(tmp_path):
    """A bag of the drive; ``front`` makes of exact depth what its driver sends, with a camera_info of so many times the focal length."""

    def make(front=MILLIMETRES, focal=1.0, sensors=tuple(TOPICS), name="drive.mcap"):
        K = SMALL.K.copy()
        K[:2, :2] *= focal
        with BagWriter(path := tmp_path / name) as writer:
            static = [StampedTransform(T0, "base_link", name, T) for name, T in {**MOUNTS, "laser": SCANNER}.items()]
            writer.write("/tf_static", names.TF_MESSAGE, T0, encode_tf(static))
            for n, pose in enumerate(PLACES):
                stamp_ns = T0 + n * STEP_NS
                writer.write(
                    "/tf",
                    names.TF_MESSAGE,
                    stamp_ns,
                    encode_tf([StampedTransform(stamp_ns, "odom", "base_link", pose)]),
                )
                if "lidar" in sensors:
                    cloud = encode_point_cloud(stamp_ns, "lidar", EXACT["lidar"][n])
                    writer.write(TOPICS["lidar"], names.POINT_CLOUD, stamp_ns, cloud)
                if "scan" in sensors:
                    ring = sweep(pose @ SCANNER, rings=np.zeros(1), steps=360).points_m
                    ranges = np.linalg.norm(ring, axis=1).astype(np.float32)
                    scan = encode_laser_scan(stamp_ns, "laser", ranges, (0.1, 20.0))
                    writer.write("/scan", names.LASER_SCAN, stamp_ns, scan)
                if "front" in sensors:
                    write_depth(writer, "front", stamp_ns, front(EXACT["front"][n]), replace(SMALL, K=K))
                if "side" in sensors:
                    write_depth(writer, "side", stamp_ns, MILLIMETRES(EXACT["side"][n]), SMALL)
        return path

    return make


def settings(*sensors, **more):
    named = {f"cameras.{name}.image_topic": TOPICS[name] for name in sensors}
    return [f"{key}={value}" for key, value in {"source": "depth", "map.size_xy_m": "10", **named, **more}.items()]


def play(path, *sensors, **more):
    with BagReader(path) as reader:
        return play_bag(reader, plan_play(reader, load_config([], settings(*sensors, **more))))


def doctor(path, capsys, *sensors):
    arguments = [part for text in settings(*sensors) for part in ("--set", text)]
    main(["doctor", str(path), "--json", *arguments])
    return [tuple(check.values()) for check in json.loads(capsys.readouterr().out)["checks"]]


def wrong_share(view, truth):
    """Share of the voxels which both maps know that differ in state."""
    assert view.window == truth.window
    both = (view.state >= 0) & (truth.state >= 0)
    assert both.sum() > 2000
    return float((view.state != truth.state)[both].mean())


FAULTS = {
    "0.1 mm": (counted(0.0001), 1.0, "depth is not in metres", "set cameras.front.depth_unit_m to 0.0001"),
    "0.25 mm": (counted(0.00025), 1.0, "depth is not in metres", "set cameras.front.depth_unit_m to 0.00025"),
    "cm": (counted(0.01), 1.0, "depth is not in metres", "set cameras.front.depth_unit_m to 0.01"),
    "feet": (lambda z: z / np.float32(0.3048), 1.0, "depth is not in metres", "set cameras.front.depth_unit_m to 0.3048"),
    "disparity": (lambda z: np.float32(30) / z, 1.0, "depth is not in metres", "as disparity does"),
    "along rays": (along_rays, 1.0, "depth is along the rays", "along the rays, expected along the optical axis"),
    "other camera": (MILLIMETRES, 2.0, "depth is of another camera", "set cameras.front.camera_info_topic to that one's"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_depth_camera_that_a_lidar_contradicts_is_left_out_and_named(bag, capsys, fault):
    front, focal, reason, words = FAULTS[fault]
    path = bag(front, focal)
    result = play(path, *TOPICS)
    assert result.summary["keyframes"] == STEPS
    assert {text.split(": ")[0] for text in result.summary["dropped"]} == {"front"}
    assert words in result.summary["problems"][f"front: {reason}"]
    assert wrong_share(result.view, play(path, "lidar").view) < 0.03
    (told,) = [check for check in doctor(path, capsys, *TOPICS) if words in check[2]]
    assert told[:2] == ("warning", "front") and told[3]


@pytest.mark.parametrize("sensors", [tuple(TOPICS), ("lidar", "front"), ("front", "side")], ids="+".join)
def test_sensors_that_are_right_are_used_without_a_word(bag, capsys, rng, sensors):
    """Noise of a stereo camera, 3 % at 2 m, included."""

    def stereo(z):
        noisy = z * (1 + 0.015 * z * rng.normal(size=z.shape))
        return MILLIMETRES(np.where(rng.random(z.shape) < 0.2, 0, noisy))

    path = bag(stereo)
    result = play(path, *sensors)
    assert result.summary["keyframes"] == STEPS
    assert result.summary["dropped"] == {} and result.summary["problems"] == {}
    assert {check[0] for check in doctor(path, capsys, *sensors)} == {"ok"}


def test_the_unit_that_is_named_makes_the_map(bag):
    """As advised: with it the camera is used, and the map is that of right depth."""
    fixed = play(bag(counted(0.0001)), *TOPICS, **{"cameras.front.depth_unit_m": "0.0001"})
    assert fixed.summary["dropped"] == {}
    right = play(bag(name="right.mcap"), *TOPICS)
    assert wrong_share(fixed.view, right.view) < 0.001


@pytest.mark.parametrize(("witness", "topic"), [("lidar", "/lidar/points"), ("scan", "/scan")])
def test_the_doctor_asks_what_else_the_bag_holds(bag, capsys, witness, topic):
    """A LiDAR or a laser scanner that no map is made with tells a unit to a depth camera that is found by itself."""
    path = bag(counted(0.01), sensors=("front", witness))
    (told,) = [check for check in doctor(path, capsys) if "depth_unit_m to 0.01" in check[2]]
    assert told[:2] == ("warning", "front_depth")
    assert f" times those that '{topic}' measures at the same place" in told[2]
    right = bag(sensors=("front", witness), name="right.mcap")
    assert {check[0] for check in doctor(right, capsys)} == {"ok"}
