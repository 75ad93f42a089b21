# SPDX-License-Identifier: Apache-2.0
"""A real node in its own process, and a real ROS graph around it; nothing of rclpy is replaced."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ["ROS_DOMAIN_ID"] = str(20 + os.getpid() % 80)

NODE = "/occupancy_nn"


class NodeProcess:
    """The live node as a user starts it."""

    def __init__(self, *arguments, name="occupancy_nn", namespace="", limit=None):
        script = Path(__file__).parents[2] / "scripts" / "occupancy_node"
        remap = ["-r", f"__node:={name}", *(["-r", f"__ns:={namespace}"] if namespace else [])]
        self.process = subprocess.Popen(
            [sys.executable, str(script), "--ros-args", *remap, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=limit,
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
        self.clients = {}
        self.received = {}

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def listen(self, topic, msgtype, qos):
        """Collect the raw messages of a topic from now on."""
        from occupancy_nn_ros.ros.message_types import interface_class

        self.received.setdefault(topic, [])
        return self.node.create_subscription(
            interface_class(msgtype), topic, self.received[topic].append, qos, raw=True
        )

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
        """Call a service and return its response.

        A server that has not yet discovered the client drops its answer: a client is kept for later calls, and asks
        again if nothing comes.
        """
        from occupancy_nn_ros.ros.message_types import interface_class

        kind = interface_class(srvtype)
        if service not in self.clients:
            self.clients[service] = self.node.create_client(kind, service)
        client = self.clients[service]
        self.until(client.service_is_ready, timeout_s)
        end = time.monotonic() + timeout_s
        while True:
            future = client.call_async(kind.Request(**fields))
            again = min(end, time.monotonic() + timeout_s / 3)
            while not future.done() and time.monotonic() < again:
                self.executor.spin_once(timeout_sec=0.05)
            if future.done():
                return future.result()
            assert time.monotonic() < end, f"no answer from {service}"

    def wait_for_node(self, topics):
        """Wait until the node under test listens to all these topics."""
        self.until(lambda: all(self.publishers[topic].get_subscription_count() > 0 for topic in topics))


def _graph():
    pytest.importorskip("rclpy", reason="needs rclpy: source a ROS distribution or run scripts/setup")
    pytest.importorskip("tf2_msgs", reason="needs tf2_msgs: source a ROS distribution or run scripts/setup")
    bench = Graph()
    yield bench
    bench.close()


def _start_node():
    """Start nodes that are stopped afterwards whatever happens."""
    started = []

    def start(*arguments, **options):
        started.append(NodeProcess(*arguments, **options))
        return started[-1]

    yield start
    for node in started:
        node.stop(signal.SIGKILL)


graph = pytest.fixture(_graph, name="graph")
start_node = pytest.fixture(_start_node, name="start_node")
lasting_graph = pytest.fixture(_graph, name="lasting_graph", scope="module")
start_lasting_node = pytest.fixture(_start_node, name="start_lasting_node", scope="module")
