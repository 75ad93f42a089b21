# SPDX-License-Identifier: Apache-2.0
"""Depth that is no depth in metres, beside a LiDAR and another depth camera: left out, counted and named, by player and doctor."""

import json
from dataclasses import replace

import numpy as np
import pytest
from box_drive import MILLIMETRES, SMALL, STEPS, TOPICS, along_rays, counted, write_drive
from box_room import depth_image

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.runtime.player import plan_play, play_bag
from occupancy_nn_ros.runtime.predictor import Predictor


@pytest.fixture
def bag(tmp_path):
    """A bag of the drive, with a camera that is wrong or right."""

    def make(*how, name="drive.mcap", **more):
        return write_drive(tmp_path / name, *how, **more)

    return make


def settings(*sensors, **more):
    named = {f"cameras.{name}.image_topic": TOPICS[name] for name in sensors}
    return [f"{key}={value}" for key, value in {"source": "depth", "map.size_xy_m": "10", **named, **more}.items()]


def play(path, *sensors, **more):
    with BagReader(path) as reader:
        return play_bag(reader, plan_play(reader, load_config([], settings(*sensors, **more))))


def doctor(path, capsys, *sensors, **more):
    arguments = [part for text in settings(*sensors, **more) for part in ("--set", text)]
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


@pytest.fixture
def seeing_network(monkeypatch):
    """A network that sees the depth of the room in whatever picture, up to 10 %."""
    predict = Predictor.place_and_predict

    def see(self, keyframe, window, place):
        keyframe, prediction = predict(self, keyframe, window, place)
        seen = [depth_image(image.T_map_cam, SMALL, image.camera, image.stamp_ns) for image in keyframe.images]
        depths = tuple(replace(depth, depth_m=np.float32(1.1) * depth.depth_m) for depth in seen)
        return keyframe, replace(prediction, depths=depths)

    monkeypatch.setattr(Predictor, "place_and_predict", see)


@pytest.mark.usefixtures("seeing_network")
@pytest.mark.parametrize(("unit_m", "words"), [(0.001, ""), (0.0001, "set cameras.front.depth_unit_m to 0.0001")])
def test_what_the_network_sees_in_pictures_tells_a_unit(bag, capsys, tiny_model, unit_m, words):
    path = bag(counted(unit_m), sensors=("eye", "front"))
    more = {"source": "network", "model": tiny_model, "cameras.eye.image_topic": "/eye/image_raw"}
    result = play(path, "front", **more)
    checks = doctor(path, capsys, "front", **more)
    told = [check for check in checks if "times those that 'network on eye'" in check[2]]
    if not words:
        assert result.summary["dropped"] == {} and not told
        return
    assert words in result.summary["problems"]["front: depth is not in metres"]
    assert [check[:2] for check in told] == [("warning", "front")] and words in told[0][2]
