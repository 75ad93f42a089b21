# SPDX-License-Identifier: Apache-2.0
"""A room whose depth, surface and occupancy are known by formula, as training shards."""

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.network.model import ModelConfig
from occupancy_nn_ros.training.shards import Shard

H, W, STRIDE = 64, 96, 4
ROOM = np.array([[-4.0, -3.0, 0.0], [4.0, 3.0, 2.5]])
"""Low and high corner of the room; the robot drives inside."""

R_BASE_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def cast(pose, K, u, v):
    """Depth and map position where the rays of pixels leave the room."""
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(np.shape(u))], axis=-1)
    world = rays @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        walls = np.where(world > 0, (ROOM[1] - pose[:3, 3]) / world, (ROOM[0] - pose[:3, 3]) / world)
    depth = walls.min(axis=-1)
    return depth, pose[:3, 3] + world * depth[..., None]


def color(points):
    """A colour for every place, smooth and steep enough to tell pixels apart."""
    return np.clip(np.round(128 + 100 * np.sin(0.5 * points)), 0, 255).astype(np.uint8)


def room_arrays(seed=0, frames=4, views=3, points=256):
    """Arrays of a shard: a base that drives and turns, with cameras around it."""
    rng = np.random.default_rng(seed)
    K = np.tile(np.array([[60.0, 0, W / 2 - 2.3], [0, 61, H / 2 + 1.7], [0, 0, 1]]), (views, 1, 1))
    cells = np.meshgrid(np.arange(W // STRIDE) * STRIDE + STRIDE // 2, np.arange(H // STRIDE) * STRIDE + STRIDE // 2)
    pixels = np.meshgrid(np.arange(W), np.arange(H))
    arrays = {name: [] for name in ("images", "T_map_cam", "T_map_base", "depth_m", "points_m", "labels")}
    for n in range(frames):
        base = np.eye(4)
        base[:3, :3], base[:3, 3] = Rotation.from_euler("z", 0.2 * n).as_matrix(), (0.25 * n - 1, 0.1 * n, 0)
        poses = []
        for view in range(views):
            mount = np.eye(4)
            mount[:3, :3] = Rotation.from_euler("ZY", [view * 1.1, 0.1]).as_matrix() @ R_BASE_OPTICAL
            mount[:3, 3] = (0.1 * view, 0, 0.8)
            poses.append(base @ mount)
        arrays["T_map_base"].append(base)
        arrays["T_map_cam"].append(np.stack(poses))
        arrays["depth_m"].append(np.stack([cast(p, K[0], *cells)[0] for p in poses]))
        arrays["images"].append(np.stack([color(cast(p, K[0], *pixels)[1]) for p in poses]))
        places = rng.uniform(ROOM[0] - 0.3, ROOM[1] + 0.3, (points, 3))
        outside = ((places < ROOM[0]) | (places > ROOM[1])).any(axis=1)
        arrays["points_m"].append(places)
        arrays["labels"].append(np.where(outside, 2, 0))
    kinds = {"images": np.uint8, "labels": np.uint8, "depth_m": np.float16}
    arrays = {name: np.stack(values).astype(kinds.get(name, np.float32)) for name, values in arrays.items()}
    return {**arrays, "K": K.astype(np.float32), "edge_m": np.full(frames, 0.2, np.float32)}


@pytest.fixture
def room_shard():
    return Shard(**room_arrays())


@pytest.fixture
def write_shard():
    def write(path, arrays=None, form="occupancy_nn_ros shard"):
        save_file(room_arrays() if arrays is None else arrays, str(path), metadata={"format": form})
        return path

    return write


@pytest.fixture
def tiny():
    return ModelConfig(
        canvas_pixels=6144, widths=(8, 8, 16, 16), feature_channels=16, match_groups=2, match_width=4, depth_bins=12,
        detail_channels=8, detail_groups=2, detail_width=4, detail_planes=6,
        volume_cell_m=0.8, volume_shape=(12, 12, 4), volume_features=4, volume_channels=6, volume_width=16,
        decoder_width=16, range_m=4.0,
    )  # fmt: skip


@pytest.fixture
def ray_cast():
    return cast


@pytest.fixture
def place_color():
    return color


@pytest.fixture
def shard_arrays():
    return room_arrays


@pytest.fixture
def data(tmp_path, write_shard, shard_arrays):
    """A folder with two shards."""
    folder = tmp_path / "data"
    folder.mkdir()
    for n in range(2):
        write_shard(folder / f"{n}.safetensors", shard_arrays(n))
    return folder
