# SPDX-License-Identifier: Apache-2.0
"""The live node in a process of its own, a ROS graph around it, what it says about itself and what it costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("ROS_DOMAIN_ID", "101")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import rclpy
from rclpy.executors import SingleThreadedExecutor

from occupancy_nn_ros.messages.names import MAP_STATUS
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.ros.qos import STATUS_QOS, TF_QOS, TF_STATIC_QOS

ROOT = Path(__file__).resolve().parents[1]
NODE = "/occupancy_nn"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class LiveNode:
    """The node as a user starts it; its output goes to a file."""

    def __init__(self, settings: Mapping[str, object], log: Path) -> None:
        """Start it with these parameters."""
        arguments = [part for key, value in settings.items() for part in ("-p", f"{key}:={value}")]
        command = [sys.executable, str(ROOT / "scripts" / "occupancy_node"), "--ros-args", *arguments]
        self.log = log
        with log.open("w", encoding="utf-8") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def cpu_s(self) -> float:
        """Seconds of processor time that all its threads took so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def memory_mb(self) -> float:
        """Resident memory in megabytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self) -> int:
        """End it as Ctrl-C does; returns its exit code."""
        if self.is_alive:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Bench:
    """A ROS node beside the one under test: publishes bytes and receives bytes."""

    def __init__(self) -> None:
        """Join the graph and listen to the status."""
        rclpy.init()
        self.node = rclpy.create_node("bench")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._publishers: dict[str, Any] = {}
        self.status: Any = None
        self.listen(f"{NODE}/status", MAP_STATUS, STATUS_QOS, self._take_status)

    def close(self) -> None:
        """Leave the graph."""
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()

    def listen(self, topic: str, msgtype: str, qos: Any, take: Callable[[bytes], object]) -> None:
        """Have ``take`` called with the bytes of every message."""
        self.node.create_subscription(interface_class(msgtype), topic, take, qos, raw=True)

    def offer(self, topics: Mapping[str, str]) -> None:
        """Announce topics, given with their types."""
        for topic, msgtype in topics.items():
            qos = TF_STATIC_QOS if topic == "/tf_static" else TF_QOS
            self._publishers[topic] = self.node.create_publisher(interface_class(msgtype), topic, qos)

    def publish(self, topic: str, cdr: bytes) -> None:
        """Send the bytes of a message."""
        self._publishers[topic].publish(cdr)

    def wait_for(self, node: LiveNode, topics: Mapping[str, str], timeout_s: float = 120.0) -> None:
        """Until the node listens to all these topics.

        Raises:
            RuntimeError: it ended, or did not come up in time; names the log.
        """
        end = time.monotonic() + timeout_s
        while not all(self._publishers[topic].get_subscription_count() for topic in topics):
            if not node.is_alive or time.monotonic() > end:
                raise RuntimeError(f"the node does not listen to {', '.join(topics)}, see {node.log}")
            self.rest_until(time.monotonic() + 0.1)

    def rest_until(self, moment_s: float) -> None:
        """Receive until a moment of the monotonic clock."""
        while (left := moment_s - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def _take_status(self, cdr: bytes) -> None:
        self.status = deserialize(MAP_STATUS, cdr)

    def drops(self) -> dict[str, int]:
        """What the node says it dropped, by reason."""
        if self.status is None:
            return {}
        return dict(zip(self.status.drop_reasons, map(int, self.status.drop_counts), strict=True))

    def latency_ms(self, stage: str) -> tuple[float, float]:
        """Median and 95th percentile of a stage as the node says."""
        at = list(self.status.stages).index(stage)
        return float(self.status.latency_p50_ms[at]), float(self.status.latency_p95_ms[at])
