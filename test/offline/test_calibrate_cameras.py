# SPDX-License-Identifier: Apache-2.0
"""``occupancy-nn calibrate-cameras`` on a recording whose camera_info, or clock, is made wrong."""

import json

import cv2
import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.doctor.examination import examine_bag
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.messages.names import CAMERA_INFO, IMAGE, TF_MESSAGE
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image, encode_tf
from occupancy_nn_ros.values import CameraModel, StampedTransform

RIGHT = CameraModel(352, 256, np.array([[280.0, 0, 176], [0, 280, 128], [0, 0, 1]]), "none", np.zeros(0))
START_NS = 10**12
PIXELS_PER_M = 60


def texture(seed):
    noise = np.random.default_rng(seed).integers(0, 255, (720, 1080, 3)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (0, 0), 1.8) * 6 - 640).clip(0, 255).astype(np.uint8)


def picture(walls, T_map_cam):
    """Walls across the map's z axis, each with its depth and its left edge."""
    image = np.zeros((256, 352, 3), np.uint8)
    for wall, depth, left in walls:
        to_map = np.array([[1 / PIXELS_PER_M, 0, left], [0, 1 / PIXELS_PER_M, -6.0], [0, 0, depth], [0, 0, 1]])
        homography = RIGHT.K @ (invert(T_map_cam) @ to_map)[:3]
        covered = cv2.warpPerspective(np.full(wall.shape[:2], 255, np.uint8), homography, (352, 256)) > 254
        image[covered] = cv2.warpPerspective(wall, homography, (352, 256))[covered]
    return image


def pose(time_s):
    transform = np.eye(4)
    angles = [0.12 * np.sin(1.1 * time_s), 0.15 * np.sin(0.8 * time_s), 0.1 * np.sin(1.7 * time_s)]
    transform[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix()
    transform[:3, 3] = (0.5 * np.sin(0.5 * time_s), 0.2 * np.sin(0.9 * time_s), 0.2 * np.sin(0.4 * time_s))
    return transform


def record(folder, focal, late_s, noise_rad=0.0, yaw=0.0):
    """Twelve seconds; the focal length is told ``focal`` times too long, and pictures are stamped ``late_s`` too late.

    Orientations jump by ``noise_rad`` every fifth of a second. The mount is told to be turned by ``yaw``.
    """
    rng, mount = np.random.default_rng(4), np.eye(4)
    mount[:3, :3] = Rotation.from_rotvec((0, yaw, 0)).as_matrix()
    walls = [(texture(0), 4.5, -9.0), (texture(1), 2.5, 0.5)]
    K = RIGHT.K.copy()
    K[[0, 1], [0, 1]] *= focal
    told = CameraModel(352, 256, K, "none", np.zeros(0))
    with BagWriter(folder / "drive.mcap") as writer:
        for time_s in np.arange(0, 12.5, 0.02):
            stamp = START_NS + round(time_s * 1e9)
            base = pose(time_s)
            if round(time_s / 0.02) % 10 == 0:
                error = Rotation.from_rotvec(rng.normal(0, noise_rad, 3)).as_matrix()
            base[:3, :3] = base[:3, :3] @ error
            edges = [StampedTransform(stamp, "odom", "base_link", base)]
            edges.append(StampedTransform(stamp, "base_link", "front_optical_frame", mount))
            writer.write("/tf", TF_MESSAGE, stamp, encode_tf(edges))
        for time_s in np.arange(0.2, 12, 0.25):
            stamp = START_NS + round((time_s + late_s) * 1e9)
            image = encode_image(stamp, "front_optical_frame", picture(walls, pose(time_s)))
            writer.write(
                "/front/camera_info", CAMERA_INFO, stamp, encode_camera_info(stamp, "front_optical_frame", told)
            )
            writer.write("/front/image_raw", IMAGE, stamp, image)
    return folder / "drive.mcap"


@pytest.mark.parametrize(("focal", "late_s"), [(1.03, 0.0), (1.0, 0.04)])
def test_the_values_that_fit_are_found_and_written(tmp_path, capsys, focal, late_s):
    bag = record(tmp_path, focal, late_s)
    assert main(["calibrate-cameras", str(bag), "--out", str(tmp_path / "out"), "--json"]) == 0
    fit = json.loads(capsys.readouterr().out)["front"]
    assert fit["focal"] == pytest.approx(1 / focal, abs=0.005)
    assert fit["delay_s"] == pytest.approx(-late_s, abs=0.004)
    written = yaml.safe_load((tmp_path / "out" / "front.yaml").read_text())
    assert written["camera_matrix"]["data"][0] == pytest.approx(280, rel=0.005)
    assert (written["image_width"], written["camera_name"]) == (352, "front")
    settings = tmp_path / "out" / "settings.yaml"
    assert settings.exists() == (late_s != 0)
    if late_s:
        assert yaml.safe_load(settings.read_text())["cameras"]["front"]["time_offset_s"] == pytest.approx(
            -late_s, abs=0.004
        )


def test_what_is_wrong_is_said_in_words_by_the_doctor_too(tmp_path, capsys):
    bag = record(tmp_path, 1.03, 0.0)
    (finding,) = (item for item in examine_bag(bag, Config(), 30.0) if "focal length" in item.text)
    assert (finding.level, finding.subject) == ("warning", "front")
    assert main(["calibrate-cameras", str(bag)]) == 0
    said = capsys.readouterr().out
    assert "front: focal length" in said
    assert "% too long" in said
    assert "would fit" in said


def test_a_camera_that_faces_the_other_way_is_found_by_its_motion(tmp_path, capsys):
    """As where front and rear camera were swapped; there is nothing that a calibration could mend."""
    bag = record(tmp_path, 1.0, 0.0, yaw=np.pi)
    (finding,) = warnings_of(bag)
    assert finding.text.startswith("its pictures show another motion than its transforms: its frame seems turned by 1")
    assert "about its y; were cameras or frames swapped?" in finding.text
    assert main(["calibrate-cameras", str(bag), "--out", str(tmp_path / "out")]) == 0
    assert "front: its pictures show another motion" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "out" / "front.yaml").read_text())["camera_matrix"]["data"][0] == 280
    assert not (tmp_path / "out" / "settings.yaml").exists()


def warnings_of(bag):
    return [item for item in examine_bag(bag, Config(), 30.0) if item.subject == "front" and item.level != "ok"]


def test_odometry_that_disagrees_with_the_pictures_is_said(tmp_path):
    """No focal length, mounting or delay explains orientations that jump by a degree and a half."""
    bag = record(tmp_path, 1.0, 0.0, noise_rad=0.025)
    (finding,) = warnings_of(bag)
    assert "poses and pictures disagree" in finding.text
    assert "docs/odometry.md" in finding.advice


def test_odometry_that_agrees_leaves_nothing_to_say(tmp_path):
    assert warnings_of(record(tmp_path, 1.0, 0.0)) == []
