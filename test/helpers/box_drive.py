# SPDX-License-Identifier: Apache-2.0
"""A drive through the room with boxes as a bag: a LiDAR, a laser scanner and two depth cameras, one of which may be wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from box_room import MODEL, at, camera_at, depth_image, sweep

from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.geometry.cameras import unproject
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.laser_scan import encode_laser_scan
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image, encode_point_cloud, encode_tf
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


def write_drive(path, front=MILLIMETRES, focal=1.0, sensors=tuple(TOPICS)):
    """Write the bag; ``front`` makes of exact depth what its driver sends, with a camera_info of so many times the focal length."""
    K = SMALL.K.copy()
    K[:2, :2] *= focal
    with BagWriter(path) as writer:
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
            if "eye" in sensors:
                picture = np.repeat((40 * EXACT["front"][n]).astype(np.uint8)[..., None], 3, axis=2)
                info = encode_camera_info(stamp_ns, "front", SMALL)
                writer.write("/eye/camera_info", names.CAMERA_INFO, stamp_ns, info)
                writer.write("/eye/image_raw", names.IMAGE, stamp_ns, encode_image(stamp_ns, "front", picture, "rgb8"))
            if "front" in sensors:
                write_depth(writer, "front", stamp_ns, front(EXACT["front"][n]), replace(SMALL, K=K))
            if "side" in sensors:
                write_depth(writer, "side", stamp_ns, MILLIMETRES(EXACT["side"][n]), SMALL)
    return path
