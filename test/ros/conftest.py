# SPDX-License-Identifier: Apache-2.0
"""A real node in its own process, and a real ROS graph around it; nothing of rclpy is replaced."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ["ROS_DOMAIN_ID"] = str(20 + os.getpid() % 80)

NODE = "/occupancy_nn"
START_NS = 1_700_000_000_000_000_000
FRAMES = 12


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A network with random weights, quick enough for any machine."""
    import torch

    from occupancy_nn_ros.network.checkpoint import Checkpoint, save_checkpoint
    from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork

    torch.manual_seed(3)
    config = ModelConfig(
        canvas_pixels=8192, widths=(8, 8, 16, 16), feature_channels=8, match_groups=2, match_width=4, depth_bins=16,
        volume_shape=(16, 16, 6), volume_cell_m=0.5, volume_features=4, volume_channels=4, volume_width=8, decoder_width=8, range_m=4.0,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    network = OccupancyNetwork(config).eval()
    last = network.decoder.layers[-1]
    last.weight.data *= 40  # far from zero, so that maps hold free and occupied voxels
    last.bias.data[0] = 0
    save_checkpoint(Checkpoint(network), path)
    return path


@pytest.fixture(scope="session")
def small_bag(tmp_path_factory):
    """Two cameras looking forward and back from a robot that drives and turns; textured pictures, 10 Hz."""
    from occupancy_nn_ros.bags.writer import BagWriter
    from occupancy_nn_ros.geometry.poses import make_transform
    from occupancy_nn_ros.messages import names
    from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image, encode_tf
    from occupancy_nn_ros.types import CameraModel, StampedTransform

    rng = np.random.default_rng(5)
    model = CameraModel(160, 120, np.array([[110.0, 0, 80], [0, 110, 60], [0, 0, 1]]), "plumb_bob", np.array([-0.1, 0.01, 0, 0, 0]))
    mounts = {"front": make_transform((0.2, 0, 0.5), (-0.5, 0.5, -0.5, 0.5)), "back": make_transform((-0.2, 0, 0.5), (0.5, 0.5, -0.5, -0.5))}
    path = tmp_path_factory.mktemp("bag") / "small.mcap"
    texture = rng.integers(0, 255, (120, 480, 3), dtype=np.uint8)
    with BagWriter(path) as writer:
        static = [StampedTransform(START_NS, "base_link", f"{name}_optical", pose) for name, pose in mounts.items()]
        writer.write("/tf_static", names.TF_MESSAGE, START_NS, encode_tf(static))
        for n in range(FRAMES * 2 + 2):
            stamp = START_NS + n * 50_000_000
            angle = 0.02 * n
            pose = make_transform((0.04 * n, 0.01 * n, 0), (0, 0, np.sin(angle / 2), np.cos(angle / 2)))
            writer.write("/tf", names.TF_MESSAGE, stamp, encode_tf([StampedTransform(stamp, "odom", "base_link", pose)]))
        for n in range(FRAMES):
            stamp = START_NS + n * 100_000_000 + 20_000_000
            for name in mounts:
                picture = np.ascontiguousarray(texture[:, 8 * n : 8 * n + 160])
                writer.write(f"/{name}/camera_info", names.CAMERA_INFO, stamp, encode_camera_info(stamp, f"{name}_optical", model))
                writer.write(f"/{name}/image_raw", names.IMAGE, stamp, encode_image(stamp, f"{name}_optical", picture))
    return path


class NodeProcess:
    """The live node as a user starts it."""

    def __init__(self, *arguments, name="occupancy_nn", namespace=""):
        script = Path(__file__).parents[2] / "scripts" / "occupancy_node"
        remap = ["-r", f"__node:={name}", *(["-r", f"__ns:={namespace}"] if namespace else [])]
        self.process = subprocess.Popen(
            [sys.executable, str(script), "--ros-args", *remap, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def stop(self, sign=signal.SIGTERM, timeout_s=40.0):
        """End the node and return its exit code and what it printed."""
        if self.process.poll() is None:
            self.process.send_signal(sign)
        try:
            output, _ = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, _ = self.process.communicate()
            output += "\n(had to be killed)"
        return self.process.returncode, output


class Graph:
    """A node of the test in the same graph: publishes recorded bytes, receives raw bytes, calls services."""

    def __init__(self):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("bench", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.publishers = {}
        self.received = {}

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def listen(self, topic, msgtype, qos):
        """Collect the raw messages of a topic from now on."""
        from occupancy_nn_ros.ros.message_types import interface_class

        self.received.setdefault(topic, [])
        return self.node.create_subscription(interface_class(msgtype), topic, self.received[topic].append, qos, raw=True)

    def offer(self, topic, msgtype):
        """Announce a topic."""
        from occupancy_nn_ros.ros.message_types import interface_class
        from occupancy_nn_ros.ros.qos import TF_QOS, TF_STATIC_QOS

        qos = TF_STATIC_QOS if topic == "/tf_static" else TF_QOS
        self.publishers[topic] = self.node.create_publisher(interface_class(msgtype), topic, qos)

    def until(self, condition, timeout_s=60.0):
        """Spin until a condition holds; fails the test if it does not in time."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "timed out"
            self.executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds):
        """Spin for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, service, srvtype, timeout_s=30.0, **fields):
        """Call a service and return its response."""
        from occupancy_nn_ros.ros.message_types import interface_class

        kind = interface_class(srvtype)
        client = self.node.create_client(kind, service)
        self.until(client.service_is_ready, timeout_s)
        future = client.call_async(kind.Request(**fields))
        self.until(future.done, timeout_s)
        self.node.destroy_client(client)
        return future.result()

    def wait_for_node(self, topics):
        """Wait until the node under test listens to all these topics."""
        self.until(lambda: all(self.publishers[topic].get_subscription_count() > 0 for topic in topics))


@pytest.fixture
def graph():
    pytest.importorskip("rclpy", reason="needs rclpy: source a ROS distribution or run scripts/setup")
    pytest.importorskip("tf2_msgs", reason="needs tf2_msgs: source a ROS distribution or run scripts/setup")
    bench = Graph()
    yield bench
    bench.close()


@pytest.fixture
def start_node():
    """Start nodes that are stopped after the test whatever happens."""
    started = []

    def start(*arguments, **options):
        started.append(NodeProcess(*arguments, **options))
        return started[-1]

    yield start
    for node in started:
        node.stop(signal.SIGKILL)
