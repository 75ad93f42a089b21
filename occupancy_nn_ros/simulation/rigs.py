# SPDX-License-Identifier: Apache-2.0
"""Camera rigs of simulated robots: where each camera sits, its intrinsics and its distortion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.values import CameraModel, FloatArray

R_BASE_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # REP 103: z forward, x right, y down


@dataclass(frozen=True)
class RigCamera:
    """One camera on a robot.

    Attributes:
        name: the camera's name; topics and frames are named after it.
        model: intrinsics and distortion.
        T_base_cam: (4, 4) optical frame into base.
    """

    name: str
    model: CameraModel
    T_base_cam: FloatArray


@dataclass(frozen=True)
class Rig:
    """A robot's sensors.

    Attributes:
        name: name of the rig.
        cameras: its cameras.
        rate_hz: frames per second of every camera.
        lidar_height_m: height of the LiDAR above base.
    """

    name: str
    cameras: tuple[RigCamera, ...]
    rate_hz: float = 10.0
    lidar_height_m: float = 0.9


def camera_pose(x: float, y: float, z: float, yaw: float, pitch: float) -> FloatArray:
    """T_base_cam of a camera at (x, y, z) that looks along yaw, tilted down by pitch, radians."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("ZY", [yaw, pitch]).as_matrix() @ R_BASE_OPTICAL
    pose[:3, 3] = (x, y, z)
    return pose


def camera_model(
    width: int, height: int, hfov_deg: float, distortion_model: str = "none", D: tuple[float, ...] = ()
) -> CameraModel:
    """Intrinsics with a horizontal field of view and a principal point a little off the centre, as real ones have."""
    focal = width / 2 / np.tan(np.deg2rad(hfov_deg) / 2)
    K = np.array([[focal, 0, width / 2 + 2.3], [0, focal * 1.003, height / 2 - 1.7], [0, 0, 1.0]])
    return CameraModel(width, height, K, distortion_model, np.array(D, dtype=np.float64))


SIX_SIDES = ("front", "front_left", "back_left", "back", "back_right", "front_right")
PLUMB_BOB = ("plumb_bob", (-0.20, 0.045, 0.0004, -0.0003, 0.0))
EQUIDISTANT = ("equidistant", (-0.012, 0.004, -0.003, 0.0006))
RATIONAL = ("rational_polynomial", (0.45, -0.02, 0.0002, -0.0001, 0.005, 0.70, 0.06, 0.01))


def named_rig(name: str) -> Rig:
    """One of the shipped rigs: ``front``, ``stereo``, ``surround4``, ``surround6``.

    Raises:
        SimulationError: unknown name; names the known ones.
    """
    around = np.deg2rad
    rigs = {
        "front": Rig(
            "front",
            (RigCamera("front", camera_model(640, 480, 75, *PLUMB_BOB), camera_pose(0.2, 0, 0.6, 0, 0.1)),),
        ),
        "stereo": Rig(
            "stereo",
            tuple(
                RigCamera(side, camera_model(640, 400, 80, *RATIONAL), camera_pose(0.2, y, 0.6, 0, 0.08))
                for side, y in (("left", 0.06), ("right", -0.06))
            ),
        ),
        "surround4": Rig(
            "surround4",
            tuple(
                RigCamera(
                    side,
                    camera_model(480, 360, 95, *PLUMB_BOB),
                    camera_pose(0.2 * np.cos(yaw), 0.2 * np.sin(yaw), 0.7, yaw, 0.12),
                )
                for side, yaw in (("front", 0.0), ("left", around(90)), ("back", around(180)), ("right", around(-90)))
            ),
        ),
        "surround6": Rig(
            "surround6",
            tuple(
                RigCamera(
                    side,
                    camera_model(704, 256, 72, *EQUIDISTANT),
                    camera_pose(0.25 * np.cos(around(yaw)), 0.25 * np.sin(around(yaw)), 0.9, around(yaw), 0.15),
                )
                for side, yaw in zip(SIX_SIDES, (0, 60, 120, 180, -120, -60), strict=True)
            ),
        ),
    }
    if name not in rigs:
        raise SimulationError(f"unknown rig '{name}', expected one of {', '.join(rigs)}")
    return rigs[name]


def random_rig(rng: np.random.Generator, *, handheld: bool = False, scale: float = 1.0) -> Rig:
    """A rig for training: one to five small pinhole cameras of one kind in any arrangement.

    Args:
        rng: source of randomness.
        handheld: one or two cameras at the height of the base, which is what moves, instead of on top of a robot.
        scale: multiplies width and height of the images, which have about 49,000 pixels at 1.
    """
    count = int(rng.choice([1, 1, 2] if handheld else [1, 2, 3, 4, 4, 5]))
    width, height = ((256, 192), (288, 160), (224, 224), (320, 160))[int(rng.choice([0, 0, 0, 1, 2, 3]))]
    model = camera_model(round(scale * width), round(scale * height), float(rng.uniform(55, 100)))
    height_m = float(rng.uniform(-0.1, 0.1) if handheld else rng.uniform(0.25, 1.4))
    pitch = float(rng.uniform(-0.1, 0.35))
    stereo = count == 2 and rng.random() < 0.7
    start = float(rng.uniform(-np.pi, np.pi)) if rng.random() < 0.2 else 0.0
    spread = float(rng.uniform(0.7, 1.0)) * 2 * np.pi / count
    cameras = []
    for n in range(count):
        yaw = start if stereo else start + n * spread
        side = (n - 0.5) * float(rng.uniform(0.06, 0.3)) if stereo else 0.0
        radius = float(rng.uniform(0.0, 0.3))
        x, y = radius * np.cos(yaw) - side * np.sin(yaw), radius * np.sin(yaw) + side * np.cos(yaw)
        pose = camera_pose(
            float(x), float(y), height_m, yaw + float(rng.normal(0, 0.05)), pitch + float(rng.normal(0, 0.05))
        )
        cameras.append(RigCamera(f"camera{n}", model, pose))
    return Rig("random", tuple(cameras), rate_hz=float(rng.uniform(2, 6)))


def lidar_directions(beams: int = 32, columns: int = 720) -> FloatArray:
    """Unit vectors (beams * columns, 3) of a spinning LiDAR with elevations from -25 to 15 degrees."""
    elevation, azimuth = np.meshgrid(
        np.deg2rad(np.linspace(-25, 15, beams)), np.arange(columns) * 2 * np.pi / columns, indexing="ij"
    )
    level = np.cos(elevation)
    return np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], axis=-1).reshape(-1, 3)
