# SPDX-License-Identifier: Apache-2.0
"""What receiving costs: six cameras of 704x256 at 10 Hz over DDS, published by this process, received by the live node.

First no keyframe is due, and the processor time of the node is that of receiving, matching and placing alone. Then there
is one every ``--period`` seconds, and the time from stamp to grid is taken without that of the network. That is a small
one by default, so that no keyframe waits for the one before. Both processes use the shared memory of config/fastdds.xml; ``--plain``
shows what Fast DDS does by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from live_node import NODE, ROOT, Bench, LiveNode

from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages.headers import restamp
from occupancy_nn_ros.messages.names import CAMERA_INFO, IMAGE, OCCUPANCY_GRID, TF_MESSAGE
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image, encode_tf
from occupancy_nn_ros.network.checkpoint import Checkpoint, save_checkpoint
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork
from occupancy_nn_ros.ros.qos import LATCHED_QOS
from occupancy_nn_ros.values import CameraModel, StampedTransform

CAMERAS, WIDTH, HEIGHT = 6, 704, 256
CAMERA_HZ, TF_HZ = 10, 100
SETTLE_S = 5.0
MAX_CORES, MAX_OVERHEAD_MS = 0.25, 30.0
NAMES = tuple(f"camera{n}" for n in range(CAMERAS))
NEVER_S = 3600.0
STAGES = ("stamp_to_grid", "without_network", "decode", "predict", "integrate", "encode")


@dataclass(frozen=True)
class Rig:
    """The messages of one moment, to be stamped anew each time."""

    images: Mapping[str, bytes]
    infos: Mapping[str, bytes]
    mounts: bytes

    @property
    def topics(self) -> dict[str, str]:
        """Everything that is published, with types."""
        topics = dict.fromkeys(self.images, IMAGE) | dict.fromkeys(self.infos, CAMERA_INFO)
        return topics | {"/tf": TF_MESSAGE, "/tf_static": TF_MESSAGE}


def make_rig() -> Rig:
    """Cameras all around, textured pictures."""
    rng = np.random.default_rng(7)
    K = np.array([[560.0, 0, WIDTH / 2], [0, 560, HEIGHT / 2], [0, 0, 1]])
    model = CameraModel(WIDTH, HEIGHT, K, "plumb_bob", np.zeros(5))
    images, infos, mounts = {}, {}, []
    forward = make_transform((0, 0, 0), (-0.5, 0.5, -0.5, 0.5))
    for n, name in enumerate(NAMES):
        yaw = 2 * np.pi * n / CAMERAS
        turn = make_transform((0, 0, 1.5), (0, 0, np.sin(yaw / 2), np.cos(yaw / 2)))
        mounts.append(StampedTransform(0, "base_link", name, turn @ forward))
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        images[f"/{name}/image_raw"] = encode_image(0, name, pixels)
        infos[f"/{name}/camera_info"] = encode_camera_info(0, name, model)
    return Rig(images, infos, encode_tf(mounts))


def save_small_network(path: Path) -> None:
    """A network with random weights; its time does not count."""
    config = ModelConfig(
        canvas_pixels=8192, widths=(8, 8, 16, 16), feature_channels=8, match_groups=2, match_width=4, depth_bins=16,
        volume_shape=(16, 16, 6), volume_cell_m=0.5, volume_features=4, volume_channels=4, volume_width=8, decoder_width=8,
        range_m=4.0,
    )  # fmt: skip
    save_checkpoint(Checkpoint(OccupancyNetwork(config).eval()), path)


def drive(bench: Bench, rig: Rig, seconds: float) -> int:
    """Publish for so long, the robot standing still; returns the images sent of each camera."""
    began, frames = time.monotonic(), 0
    for tick in range(round(seconds * TF_HZ)):
        bench.rest_until(began + tick / TF_HZ)
        now_ns = time.time_ns()
        bench.publish("/tf", encode_tf([StampedTransform(now_ns, "odom", "base_link", np.eye(4))]))
        if tick % (TF_HZ // CAMERA_HZ):
            continue
        frames += 1
        for topic, cdr in (rig.infos | rig.images).items():
            bench.publish(topic, restamp(cdr, now_ns))
    return frames


def run(bench: Bench, rig: Rig, settings: Mapping[str, object], seconds: float, log: Path) -> dict[str, float]:
    """Figures of one node: share of a core, frames received of those sent, and what it says about latencies.

    Raises:
        RuntimeError: the node did not come up, or did not live through it.
    """
    node = LiveNode(settings, log)
    try:
        bench.wait_for(node, rig.topics)
        bench.publish("/tf_static", rig.mounts)
        sent = drive(bench, rig, SETTLE_S)
        before_cpu, before = node.cpu_s(), time.monotonic()
        sent += drive(bench, rig, seconds)
        cores = (node.cpu_s() - before_cpu) / (time.monotonic() - before)
        bench.rest_until(time.monotonic() + 2.5)  # two reports of the node
        if not node.is_alive:
            raise RuntimeError(f"the node has died: {log.read_text(encoding='utf-8')[-2000:]}")
        figures = {
            "cores": round(cores, 3),
            "received": round(float(np.mean(bench.status.frames_received)) / sent, 4),
            "keyframes": float(bench.status.keyframes),
        }
        for stage in STAGES:
            p50, p95 = bench.latency_ms(stage)
            figures |= {f"{stage}_p50_ms": round(p50, 1), f"{stage}_p95_ms": round(p95, 1)}
        return figures
    finally:
        node.stop()


def main() -> int:
    """Print the figures; exit code 1 if receiving costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each of the two runs")
    parser.add_argument(
        "--period", type=float, default=0.5, help="seconds between keyframes, more than the network takes"
    )
    parser.add_argument("--model", default="", help="a network instead of the small one, such as nano")
    parser.add_argument("--plain", action="store_true", help="Fast DDS' own transports")
    parser.add_argument("--json", action="store_true", help="print one object instead of the table")
    arguments = parser.parse_args()
    if not arguments.plain:
        os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(ROOT / "config" / "fastdds.xml")
    bench, rig = Bench(), make_rig()
    bench.offer(rig.topics)
    bench.listen(f"{NODE}/occupancy_grid", OCCUPANCY_GRID, LATCHED_QOS, lambda cdr: None)
    with tempfile.TemporaryDirectory() as folder:
        log, small = Path(folder) / "node.log", Path(folder) / "small.safetensors"
        save_small_network(small)
        model = arguments.model or small
        idle, mapping = (
            run(bench, rig, {"model": model, "keyframes.max_period_s": period_s}, arguments.seconds, log)
            for period_s in (NEVER_S, arguments.period)
        )
    bench.close()
    figures = {"cores_no_keyframe_due": idle["cores"], "received_no_keyframe_due": idle["received"], **mapping}
    figures["dropped"] = float(sum(bench.drops().values()))
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<28} {value:10.3f}")
    is_cheap = figures["cores_no_keyframe_due"] <= MAX_CORES and figures["without_network_p95_ms"] <= MAX_OVERHEAD_MS
    if not is_cheap:
        limits = f"at most {MAX_CORES} of a core and {MAX_OVERHEAD_MS:.0f} ms without the network"
        print(f"receiving costs too much, expected {limits}", file=sys.stderr)
    return 0 if is_cheap else 1


if __name__ == "__main__":
    sys.exit(main())
