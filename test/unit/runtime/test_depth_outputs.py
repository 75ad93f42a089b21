# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.messages.decode import decode_camera_info
from occupancy_nn_ros.messages.images import decode_depth
from occupancy_nn_ros.messages.names import CAMERA_INFO, IMAGE, POINT_CLOUD
from occupancy_nn_ros.runtime.depth_outputs import depth_topics, encode_depths
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.values import CameraModel, PosedDepth

MODEL = CameraModel(4, 3, np.array([[5.0, 0, 1.5], [0, 6, 1], [0, 0, 1]]), "none", np.zeros(0))


def sensors(*names):
    return [SensorStream(name, f"/{name}", IMAGE) for name in names]


def test_cameras_that_the_network_sees_have_depth_topics():
    config, lidar = load_config(), SensorStream("top", "/points", POINT_CLOUD, kind="cloud")
    assert depth_topics(config, [*sensors("front"), lidar]) == {
        "depth/front/image": IMAGE,
        "depth/front/camera_info": CAMERA_INFO,
    }
    assert depth_topics(load_config([], ["network.sure_depth=1"]), sensors("front")) == {}


@pytest.mark.parametrize(("camera", "token"), [("rear-left", "rear_left"), ("0", "_0"), ("größe", "gr__e")])
def test_any_camera_has_a_name_that_a_topic_may_have(camera, token):
    assert list(depth_topics(load_config(), sensors(camera))) == [f"depth/{token}/image", f"depth/{token}/camera_info"]


def test_what_is_wanted_goes_out_in_the_cameras_own_frame_and_stamp(rng):
    depth_m = rng.uniform(0.3, 9, (3, 4)).astype(np.float32)
    depth_m[1, 2] = 0
    depths = [PosedDepth(name, 7_000_000_123, depth_m, MODEL, np.eye(4)) for name in ("front", "rear")]
    frames = {"front": "front_optical", "rear": "rear_optical"}
    wanted = {"depth/front/image", "depth/rear/camera_info", "occupancy_grid"}
    image, info = encode_depths(depths, frames, wanted)
    assert (image.name, image.msgtype, image.stamp_ns) == ("depth/front/image", IMAGE, 7_000_000_123)
    header, decoded = decode_depth(IMAGE, image.cdr)
    assert (header.frame_id, header.stamp_ns) == ("front_optical", 7_000_000_123)
    assert np.abs(decoded - depth_m).max() <= 0.00051 and decoded[1, 2] == 0
    header, model = decode_camera_info(info.cdr)
    assert (info.name, header.frame_id) == ("depth/rear/camera_info", "rear_optical")
    assert (model.width, model.height) == (4, 3)
    assert np.array_equal(model.K, MODEL.K) and not model.D.any()
