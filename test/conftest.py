# SPDX-License-Identifier: Apache-2.0
"""Settings that all tests share: fixed seeds, one thread for torch, and hypothesis without wall-clock limits."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")

START_NS = 1_700_000_000_000_000_000
FRAMES = 12

settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("suite")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


@pytest.fixture(autouse=True, scope="session")
def _quiet_cores() -> None:
    """Small tensors are slower on many threads, and other work may run beside the tests."""
    import torch

    torch.set_num_threads(1)


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
    from occupancy_nn_ros.values import CameraModel, StampedTransform

    rng = np.random.default_rng(5)
    model = CameraModel(
        160, 120, np.array([[110.0, 0, 80], [0, 110, 60], [0, 0, 1]]), "plumb_bob", np.array([-0.1, 0.01, 0, 0, 0])
    )
    mounts = {
        "front": make_transform((0.2, 0, 0.5), (-0.5, 0.5, -0.5, 0.5)),
        "back": make_transform((-0.2, 0, 0.5), (0.5, 0.5, -0.5, -0.5)),
    }
    path = tmp_path_factory.mktemp("bag") / "small.mcap"
    texture = rng.integers(0, 255, (120, 480, 3), dtype=np.uint8)
    with BagWriter(path) as writer:
        static = [StampedTransform(START_NS, "base_link", f"{name}_optical", pose) for name, pose in mounts.items()]
        writer.write("/tf_static", names.TF_MESSAGE, START_NS, encode_tf(static))
        for n in range(FRAMES * 2 + 2):
            stamp = START_NS + n * 50_000_000
            angle = 0.02 * n
            pose = make_transform((0.04 * n, 0.01 * n, 0), (0, 0, np.sin(angle / 2), np.cos(angle / 2)))
            writer.write(
                "/tf", names.TF_MESSAGE, stamp, encode_tf([StampedTransform(stamp, "odom", "base_link", pose)])
            )
        for n in range(FRAMES):
            stamp = START_NS + n * 100_000_000 + 20_000_000
            for name in mounts:
                picture = np.ascontiguousarray(texture[:, 8 * n : 8 * n + 160])
                writer.write(
                    f"/{name}/camera_info",
                    names.CAMERA_INFO,
                    stamp,
                    encode_camera_info(stamp, f"{name}_optical", model),
                )
                writer.write(f"/{name}/image_raw", names.IMAGE, stamp, encode_image(stamp, f"{name}_optical", picture))
    return path


@pytest.fixture(scope="session")
def renderer_works():
    """Skips, with the reason, where MuJoCo cannot render."""
    from occupancy_nn_ros.errors import MissingDependencyError
    from occupancy_nn_ros.simulation.rendering import WorldRenderer
    from occupancy_nn_ros.simulation.rigs import named_rig
    from occupancy_nn_ros.simulation.world import World

    try:
        with WorldRenderer(World("probe", 0, (), (-1.0, -1.0, 1.0, 1.0))) as renderer:
            renderer.render(named_rig("front").cameras[0].model, np.eye(4))
    except MissingDependencyError as error:
        pytest.skip(str(error))
