# SPDX-License-Identifier: Apache-2.0
import pytest

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.messages.names import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, POINT_CLOUD, TF_MESSAGE
from occupancy_nn_ros.runtime.discovery import close_topics, discover_sensors

REALSENSE = {
    "/camera/color/image_raw": IMAGE,
    "/camera/color/image_raw/compressed": COMPRESSED_IMAGE,
    "/camera/color/camera_info": CAMERA_INFO,
    "/camera/depth/image_rect_raw": IMAGE,
    "/camera/depth/image_rect_raw/compressedDepth": COMPRESSED_IMAGE,
    "/camera/depth/camera_info": CAMERA_INFO,
    "/camera/depth/color/points": POINT_CLOUD,
    "/tf": TF_MESSAGE,
}
SURROUND = {
    f"/cams/{side}/{leaf}": kind
    for side in ("front", "left", "right")
    for leaf, kind in (("image_raw/compressed", COMPRESSED_IMAGE), ("camera_info", CAMERA_INFO), ("mask", IMAGE))
}


def found(topics, *overrides, encodings=None):
    return discover_sensors(load_config([], overrides), topics, encodings)


def test_colour_camera_is_taken_raw_and_depth_is_left_alone():
    (sensor,) = found(REALSENSE)
    assert (sensor.name, sensor.topic) == ("camera_color", "/camera/color/image_raw")
    assert sensor.info_topic == "/camera/color/camera_info"
    assert not sensor.is_rectified


def test_depth_source_takes_the_depth_image():
    (sensor,) = found(REALSENSE, "source=depth")
    assert sensor.topic == "/camera/depth/image_rect_raw"
    assert sensor.is_rectified


def test_lidar_source_takes_clouds_that_are_no_depth_clouds():
    assert found(REALSENSE, "source=lidar") == ()
    (sensor,) = found({**REALSENSE, "/ouster/points": POINT_CLOUD}, "source=lidar")
    assert (sensor.topic, sensor.info_topic) == ("/ouster/points", "")


def test_cameras_are_named_by_what_tells_them_apart_and_masks_are_no_pictures():
    assert [s.name for s in found(SURROUND)] == ["front", "left", "right"]


def test_encoding_tells_depth_where_the_name_does_not():
    topics = {"/a/image": IMAGE, "/a/camera_info": CAMERA_INFO, "/b/image": IMAGE, "/b/camera_info": CAMERA_INFO}
    encodings = {"/a/image": "rgb8", "/b/image": "16UC1"}
    assert [s.topic for s in found(topics, encodings=encodings)] == ["/a/image"]
    assert [s.topic for s in found(topics, "source=depth", encodings=encodings)] == ["/b/image"]


def test_a_camera_named_in_the_settings_finds_its_topic_and_keeps_its_offset():
    (sensor,) = found(SURROUND, "cameras.left.time_offset_s=0.25", "cameras.left.frame_id=left_cam")
    assert sensor.topic == "/cams/left/image_raw/compressed"
    assert (sensor.time_offset_ns, sensor.frame_id) == (250_000_000, "left_cam")


def test_wrong_topics_are_refused_with_what_is_there():
    with pytest.raises(ConfigError, match=r"/nothing, which does not exist.*/cams/front/image_raw/compressed"):
        found(SURROUND, "cameras.x.image_topic=/nothing")
    with pytest.raises(ConfigError, match="expected Image, CompressedImage or PointCloud2"):
        found(SURROUND, "cameras.x.image_topic=/cams/front/camera_info")
    with pytest.raises(ConfigError, match="no topic found for camera 'rear'"):
        found(SURROUND, "cameras.rear.frame_id=rear")


def test_nothing_to_find_is_no_error():
    assert found({"/tf": TF_MESSAGE}) == ()


def test_a_depth_camera_and_a_lidar_named_beside_cameras_keep_their_kind():
    topics = {**REALSENSE, "/ouster/points": POINT_CLOUD}
    names = {"rgb": "/camera/color/image_raw", "d": "/camera/depth/image_rect_raw", "top": "/ouster/points"}
    sensors = found(topics, *(f"cameras.{name}.image_topic={topic}" for name, topic in names.items()))
    assert [(s.name, s.kind) for s in sensors] == [("rgb", "image"), ("d", "depth"), ("top", "cloud")]
    assert [s.info_topic for s in sensors] == ["/camera/color/camera_info", "/camera/depth/camera_info", ""]


@pytest.mark.parametrize(
    ("topic", "kind", "expected"),
    [("/a/image", "depth", "depth"), ("/b/depth/image", "image", "image"), ("/b/depth/image", "auto", "depth")],
)
def test_a_configured_kind_wins_over_the_name(topic, kind, expected):
    topics = {"/a/image": IMAGE, "/b/depth/image": IMAGE}
    (sensor,) = found(topics, f"cameras.x.image_topic={topic}", f"cameras.x.kind={kind}")
    assert sensor.kind == expected


@pytest.mark.parametrize(("topic", "kind"), [("/a/image", "cloud"), ("/points", "image"), ("/points", "depth")])
def test_a_kind_that_the_message_type_cannot_be_is_refused(topic, kind):
    with pytest.raises(ConfigError, match=f"x.kind is '{kind}', but {topic} is a"):
        found({"/a/image": IMAGE, "/points": POINT_CLOUD}, f"cameras.x.image_topic={topic}", f"cameras.x.kind={kind}")


def test_topics_close_to_a_missing_one_are_told_and_only_those_of_its_type():
    topics = {**SURROUND, "/tf": TF_MESSAGE, "/cams/front/image": IMAGE}
    close = close_topics("/cams/frnt/image", topics, [IMAGE])
    assert close[0] == "/cams/front/image"
    assert len(close) == 3 and {topics[name] for name in close} == {IMAGE}
    assert close_topics("/zzz", topics, [CAMERA_INFO]) == [f"/cams/{s}/camera_info" for s in ("front", "left", "right")]
    assert close_topics("/zzz", topics, [POINT_CLOUD]) == []


def test_qos_settings_reach_the_sensor():
    (sensor,) = found(SURROUND, "cameras.left.qos_reliability=reliable", "cameras.left.qos_depth=2")
    assert (sensor.qos_reliability, sensor.qos_depth) == ("reliable", 2)
    assert {(s.qos_reliability, s.qos_depth) for s in found(SURROUND)} == {("auto", 5)}
