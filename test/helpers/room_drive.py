# SPDX-License-Identifier: Apache-2.0
"""A depth camera that drives through an empty room, as recorded messages: what other people's robots do to their stamps, frames and
topics is done to these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.doctor.examination import examine_bag
from occupancy_nn_ros.geometry.poses import make_transform, quaternion
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_depth_image, encode_odometry, encode_tf
from occupancy_nn_ros.messages.typestore import deserialize, header, make, serialize
from occupancy_nn_ros.runtime.player import plan_play, play_bag
from occupancy_nn_ros.values import CameraModel, StampedTransform

SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND
SECONDS = 5.0
IMAGE_NS, TF_NS = 100_000_000, 20_000_000
MODEL = CameraModel(32, 24, np.array([[20.0, 0, 15.5], [0, 20, 11.5], [0, 0, 1]]), "none", np.zeros(0))
ROOM = np.array([[-3.0, -2.5, 0.0], [4.0, 2.5, 2.4]])
MOUNT = make_transform((0.1, 0, 0.5), (-0.5, 0.5, -0.5, 0.5))
SETTINGS = ("source=depth", "map.size_xy_m=10.0", "map.below_m=0.4", "map.above_m=2.4")


@dataclass(frozen=True)
class Message:
    """A recorded message; ``recorded_ns`` is when it arrived."""

    recorded_ns: int
    topic: str
    msgtype: str
    cdr: bytes


def pose(stamp_ns):
    """Where the robot is: half a metre each second, turning."""
    t = (stamp_ns - START_NS) * 1e-9
    yaw = 0.3 * t
    return make_transform((-1.5 + 0.5 * t, 0.1 * t, 0), (0, 0, np.sin(yaw / 2), np.cos(yaw / 2)))


def nod(stamp_ns):
    """A head that turns on the robot."""
    yaw = 0.4 * np.sin((stamp_ns - START_NS) * 2e-9)
    return make_transform((0, 0, 0.3), (0, 0, np.sin(yaw / 2), np.cos(yaw / 2)))


def depth(T_map_cam):
    """What the camera measures from inside of the room: along each pixel's ray the nearest wall."""
    u, v = np.meshgrid(np.arange(MODEL.width), np.arange(MODEL.height))
    rays = np.stack(
        [(u - MODEL.K[0, 2]) / MODEL.K[0, 0], (v - MODEL.K[1, 2]) / MODEL.K[1, 1], np.ones(u.shape)], axis=-1
    )
    ways, origin = rays @ T_map_cam[:3, :3].T, T_map_cam[:3, 3]
    with np.errstate(divide="ignore"):
        walls = np.where(ways > 0, ROOM[1] - origin, ROOM[0] - origin) / ways
    return walls.min(axis=-1).astype(np.float32)


def stamps(period_ns, seconds=SECONDS, start_s=0.0):
    return [START_NS + n for n in range(round(start_s * SECOND), round(seconds * SECOND) + 1, period_ns)]


def tf(stamp_ns, parent, child, T, *, topic="/tf", recorded_ns=None):
    cdr = encode_tf([StampedTransform(stamp_ns, parent, child, T)])
    return Message(stamp_ns if recorded_ns is None else recorded_ns, topic, names.TF_MESSAGE, cdr)


def static(parent="base_link", child="eye", T=MOUNT, *, recorded_ns=START_NS, topic="/tf_static"):
    return [tf(START_NS, parent, child, T, topic=topic, recorded_ns=recorded_ns)]


def moves(
    parent="odom", child="base_link", of=pose, *, start_s=0.0, period_ns=TF_NS, ahead_ns=0, late_ns=0, topic="/tf"
):
    """A moving transform; dated ``ahead_ns`` ahead of its time, and arriving ``late_ns`` later."""
    return [
        tf(s + ahead_ns, parent, child, of(s), topic=topic, recorded_ns=s + late_ns)
        for s in stamps(period_ns, SECONDS + 0.1, start_s)
    ]


def odometry(parent="odom", child="base_link", of=pose, *, start_s=0.0, topic="/odometry"):
    return [
        Message(s, topic, names.ODOMETRY, encode_odometry(StampedTransform(s, parent, child, of(s))))
        for s in stamps(TF_NS, SECONDS + 0.1, start_s)
    ]


def pose_stamped(topic="/pose"):
    found = []
    for s in stamps(TF_NS, SECONDS + 0.1):
        T, turn = pose(s), dict(zip("xyzw", quaternion(pose(s)), strict=True))
        place = make("geometry_msgs/Point", **dict(zip("xyz", T[:3, 3], strict=True)))
        inner = make("geometry_msgs/Pose", position=place, orientation=make("geometry_msgs/Quaternion", **turn))
        cdr = serialize(make("geometry_msgs/PoseStamped", header=header(s, "odom"), pose=inner))
        found.append(Message(s, topic, names.POSE_STAMPED, cdr))
    return found


def pose_with_covariance(topic):
    return [
        Message(
            m.recorded_ns, topic, names.POSE_WITH_COVARIANCE_STAMPED, _with_covariance(deserialize(m.msgtype, m.cdr))
        )
        for m in pose_stamped()
    ]


def _with_covariance(message):
    pose = make("geometry_msgs/PoseWithCovariance", pose=message.pose, covariance=np.zeros(36))
    return serialize(make("geometry_msgs/PoseWithCovarianceStamped", header=message.header, pose=pose))


def images(frame="eye", *, has_head=False, folder="/eye", shift_ns=0):
    """Depth images and camera_info, stamped between two transforms."""
    found = []
    for s in stamps(IMAGE_NS, SECONDS - 0.1):
        s += 7_000_000
        T_base_cam = nod(s) @ MOUNT if has_head else MOUNT
        image = encode_depth_image(s + shift_ns, frame, depth(pose(s) @ T_base_cam))
        info = encode_camera_info(s + shift_ns, frame, MODEL)
        found += [
            Message(s, f"{folder}/depth/camera_info", names.CAMERA_INFO, info),
            Message(s, f"{folder}/depth/image_raw", names.IMAGE, image),
        ]
    return found


def head():
    """A camera on a head that turns on the robot."""
    return [*static("head", "eye"), *moves("base_link", "head", nod), *images(has_head=True)]


def write(path, *parts):
    """A bag of messages, in order of arrival."""
    messages = sorted((m for part in parts for m in part), key=lambda m: m.recorded_ns)
    with BagWriter(path) as writer:
        for message in messages:
            writer.write(message.topic, message.msgtype, message.recorded_ns, message.cdr)
    return path


def play(path, *settings):
    """The result of playing a bag with small settings."""
    with BagReader(path) as reader:
        return play_bag(reader, plan_play(reader, load_config([], [*SETTINGS, *settings])))


def examine(path, *settings):
    """What the doctor says: (level, subject, text, advice)."""
    found = examine_bag(path, load_config([], [*SETTINGS, *settings]), 30.0)
    return [(f.level, f.subject, f.text, f.advice) for f in found]
