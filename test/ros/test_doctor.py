# SPDX-License-Identifier: Apache-2.0
"""``occupancy-nn doctor`` on a live graph, as a user runs it: its own process, over real DDS."""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest

from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image, encode_tf
from occupancy_nn_ros.values import CameraModel, StampedTransform

MODEL = CameraModel(32, 24, np.array([[20.0, 0, 16], [0, 20, 12], [0, 0, 1]]), "plumb_bob", np.zeros(5))
FORWARD = make_transform((0.2, 0, 0.5), (-0.5, 0.5, -0.5, 0.5))
TEXTURE = np.random.default_rng(1).integers(0, 255, (24, 32, 3), dtype=np.uint8)
PERIOD_S = 0.1
CDR = {names.IMAGE: "image_raw", names.CAMERA_INFO: "camera_info"}


class Robot:
    """Cameras called by name, each with its publisher's reliability, on a robot that stands still."""

    def __init__(self, graph, **cameras):
        from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

        from occupancy_nn_ros.ros.message_types import interface_class

        self.graph, self.cameras = graph, cameras
        self.publishers = {}

        def offer(topic, msgtype, reliability, latched=False):
            durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
            profile = QoSProfile(
                history=HistoryPolicy.KEEP_LAST, depth=5, durability=durability,
                reliability=ReliabilityPolicy[reliability.upper()],
            )  # fmt: skip
            self.publishers[topic] = graph.node.create_publisher(interface_class(msgtype), topic, profile)

        for name, reliability in cameras.items():
            for msgtype, leaf in CDR.items():
                offer(f"/{name}/{leaf}", msgtype, reliability)
        offer("/tf", names.TF_MESSAGE, "reliable")
        offer("/tf_static", names.TF_MESSAGE, "reliable", latched=True)
        mounts = [StampedTransform(0, "base_link", f"{name}_lens", FORWARD) for name in cameras]
        self.publishers["/tf_static"].publish(encode_tf(mounts))

    def send(self, age_s=0.0):
        now = time.time_ns() - round(age_s * 1e9)
        self.publishers["/tf"].publish(encode_tf([StampedTransform(now, "odom", "base_link", np.eye(4))]))
        for name in self.cameras:
            self.publishers[f"/{name}/camera_info"].publish(encode_camera_info(now, f"{name}_lens", MODEL))
            picture = encode_image(now, f"{name}_lens", TEXTURE)
            self.publishers[f"/{name}/image_raw"].publish(picture)


@pytest.fixture
def doctor(graph, tiny_model):
    def run(robot, *arguments, age_s=0.0):
        """Run the doctor while the robot sends; returns its exit status and findings by subject."""
        code = "import sys; from occupancy_nn_ros.cli.main import main; sys.exit(main())"
        options = ["doctor", "--json", "--wait", "2", "--model", str(tiny_model), *arguments]
        process = subprocess.Popen(
            [sys.executable, "-c", code, *options], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        end = time.monotonic() + 60
        while process.poll() is None:
            assert time.monotonic() < end
            robot.send(age_s)
            graph.spin(PERIOD_S)
        report = json.loads(process.stdout.read())
        return process.returncode, [tuple(check.values()) for check in report["checks"]]

    return run


def test_a_robot_that_is_well(graph, doctor):
    robot = Robot(graph, front="best_effort", rear="reliable")
    code, checks = doctor(robot)
    assert code == 0, checks
    amiss = [check for check in checks if check[0] != "ok" and "gaps" not in check[2]]  # a busy machine may pause
    assert amiss == []
    assert [check[1] for check in checks] == [
        "model",
        "packages",
        "front",
        "front",
        "rear",
        "rear",
        "sync",
        "frames",
        "front",
        "rear",
        "map",
    ]
    by = "tf2_ros" if find_spec("tf2_ros") else "this package's own tree"
    assert checks[1][2].startswith(f"transforms by {by}; ")
    assert ("not installed: " in checks[1][2]) == (not (find_spec("cv_bridge") and find_spec("sensor_msgs_py")))
    assert "/front/image_raw: image rgb8 32x24, " in checks[2][2]


def test_what_is_wrong_with_a_robot(graph, doctor):
    """One camera cannot be received, one has no calibration, one a name that is wrong; clocks differ by a minute."""
    robot = Robot(graph, front="best_effort", rear="reliable")
    second = Robot(graph, rear="reliable")
    wanted = {
        "front": ["image_topic=/front/image_raw", "qos_reliability=reliable"],
        "rear": ["image_topic=/rear/image_raw", "camera_info_topic=/rear/info"],
        "left": ["image_topic=/left/image_raw"],
    }
    settings = [
        part for name, items in wanted.items() for item in items for part in ("--set", f"cameras.{name}.{item}")
    ]
    code, checks = doctor(robot, *settings, age_s=60.0)
    assert code == 1
    problems = {check[1]: check[2] for check in checks if check[0] == "problem"}
    assert set(problems) == {"front", "rear", "left", "map"}, checks
    assert "/bench publishes /front/image_raw best effort, this node asks for reliable" in problems["front"]
    assert "nobody publishes it; topics of its type: /rear/camera_info" in problems["rear"]
    assert "left.image_topic is /left/image_raw, which does not exist; close to it: " in problems["left"]
    warnings = [check[2] for check in checks if check[0] == "warning"]
    assert "stamps are 60." in warnings[0] and warnings[0].endswith("s behind this machine's clock")
    assert warnings[1] == "/rear/image_raw has 2 publishers: /bench, /bench"
    assert len(second.publishers) == 4
