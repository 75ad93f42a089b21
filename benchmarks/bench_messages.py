# SPDX-License-Identifier: Apache-2.0
"""How long the largest messages take to encode and decode, and how that compares with rclpy's own objects."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from timing import median_ms

from occupancy_nn_ros.messages import decode, images, maps, names, sensors
from occupancy_nn_ros.values import GridSlice, LatticeWindow, MapView

LIMIT_MS = 20.0
"""100,000 marker cubes must encode within this on two cores."""


def make_voxels(count: int) -> maps.OccupiedVoxels:
    """Random occupied voxels."""
    rng = np.random.default_rng(1)
    return maps.OccupiedVoxels(
        points_m=rng.normal(0, 5, (count, 3)).astype(np.float32),
        probability=rng.random(count, dtype=np.float32),
        classes=rng.integers(0, 7, count).astype(np.uint8),
        colors=rng.integers(0, 256, (count, 3)).astype(np.uint8),
    )


def make_view(shape: tuple[int, int, int]) -> MapView:
    """A random map."""
    rng = np.random.default_rng(2)
    return MapView(
        stamp_ns=1,
        frame_id="odom",
        window=LatticeWindow(0.2, (0, 0, 0), shape),
        T_map_base=np.eye(4),
        state=rng.integers(-1, 2, shape).astype(np.int8),
        probability=rng.random(shape, dtype=np.float32),
        classes=rng.integers(0, 7, shape).astype(np.uint8),
    )


def rclpy_markers(voxels: maps.OccupiedVoxels) -> Callable[[], bytes] | None:
    """The same markers built from rclpy's message objects, or None without rclpy."""
    try:
        from geometry_msgs.msg import Point
        from rclpy.serialization import serialize_message
        from std_msgs.msg import ColorRGBA
        from visualization_msgs.msg import Marker, MarkerArray
    except ImportError:
        return None

    def build() -> bytes:
        marker = Marker(ns="occupied_voxels", type=Marker.CUBE_LIST)
        marker.points = [Point(x=x, y=y, z=z) for x, y, z in voxels.points_m.astype(np.float64).tolist()]
        colors = (voxels.colors / 255).tolist()
        marker.colors = [ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in colors]
        return bytes(serialize_message(MarkerArray(markers=[marker])))

    return build


def run(count: int, repeats: int) -> dict[str, float]:
    """Milliseconds of each conversion, by name."""
    voxels = make_voxels(count)
    view = make_view((120, 120, 20))
    grid = GridSlice(1, "odom", 0.2, (0.0, 0.0, 0.0), np.zeros((400, 400), np.int8))
    rng = np.random.default_rng(3)
    raw = sensors.encode_image(1, "cam", rng.integers(0, 256, (720, 1280, 3), dtype=np.uint8), "bgr8")
    jpeg = sensors.encode_compressed_image(1, "cam", np.full((720, 1280, 3), 90, np.uint8))
    cloud = sensors.encode_point_cloud(1, "lidar", voxels.points_m)
    figures = {
        f"encode {count} marker cubes": median_ms(
            lambda: maps.encode_cube_markers(1, "odom", voxels, 0.2), repeats, warm_up=True
        ),
        f"encode cloud of {count} voxels": median_ms(
            lambda: maps.encode_occupied_cloud(1, "odom", voxels), repeats, warm_up=True
        ),
        "encode voxel grid 120x120x20": median_ms(lambda: maps.encode_voxel_grid(view), repeats, warm_up=True),
        "encode occupancy grid 400x400": median_ms(lambda: maps.encode_occupancy_grid(grid), repeats, warm_up=True),
        f"decode cloud of {count} points": median_ms(lambda: decode.decode_point_cloud(cloud), repeats, warm_up=True),
        "decode image 1280x720 bgr8": median_ms(lambda: images.decode_image(names.IMAGE, raw), repeats, warm_up=True),
        "decode image 1280x720 jpeg": median_ms(
            lambda: images.decode_image(names.COMPRESSED_IMAGE, jpeg), repeats, warm_up=True
        ),
    }
    objects = rclpy_markers(voxels)
    if objects is not None:
        name = f"encode {count} marker cubes"
        figures[f"{name} with rclpy objects"] = median_ms(objects, max(1, repeats // 10), warm_up=True)
        figures["rclpy objects / ours"] = figures[f"{name} with rclpy objects"] / figures[name]
    return figures


def main() -> int:
    """Print the table; exit code 1 if marker cubes take longer than they may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="marker cubes")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    figures = run(arguments.count, arguments.repeats)
    for name, value in figures.items():
        print(f"{name:<48} {value:9.2f} {'x' if '/' in name else 'ms'}")
    if "rclpy objects / ours" not in figures:
        print("rclpy is not installed: no comparison with its objects")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    cubes = figures[f"encode {arguments.count} marker cubes"]
    if arguments.count <= 100_000 and cubes > LIMIT_MS:
        print(f"marker cubes took {cubes:.1f} ms, expected at most {LIMIT_MS:.0f} ms", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
