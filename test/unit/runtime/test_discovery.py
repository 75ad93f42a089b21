# SPDX-License-Identifier: Apache-2.0
import pytest

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.messages.names import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, MAP_STATUS, POINT_CLOUD, TF_MESSAGE
from occupancy_nn_ros.runtime import topic_names
from occupancy_nn_ros.runtime.discovery import close_topics, discover_sensors, left_out_cameras

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


@pytest.mark.parametrize(
    ("topic", "settings", "words"),
    [
        ("/points", ["mask=robot.png"], "x.mask is robot.png, and /points is taken for a cloud, expected depth"),
        ("/points", ["camera_info_topic=/a/info"], "x.camera_info_topic is /a/info, and /points is taken for a cloud"),
        (
            "/a/image",
            ["depth_unit_m=0.01"],
            "x.depth_unit_m is 0.01, and /a/image is taken for pictures, expected depth",
        ),
        (
            "/b/depth/image",
            ["sensor_frame=lidar"],
            "x.sensor_frame is lidar, and /b/depth/image is taken for depth, expected a cloud",
        ),
        ("/a/image", ["kind=image", "source"], "x: /a/image holds pictures and source is 'depth'"),
    ],
)
def test_what_is_set_and_would_not_be_used_is_refused(topic, settings, words):
    """Each of them was left out in silence: the robot saw itself, the rays began elsewhere, nothing was mapped of the pictures."""
    topics = {"/a/image": IMAGE, "/b/depth/image": IMAGE, "/points": POINT_CLOUD}
    others = [f"cameras.x.{text}" for text in settings if text != "source"]
    source = ["source=depth"] if "source" in settings else []
    with pytest.raises(ConfigError, match=words):
        found(
            topics,
            f"cameras.x.image_topic={topic}",
            *others,
            *source,
            encodings={"/a/image": "rgb8", "/b/depth/image": "16UC1"},
        )


def test_a_unit_is_kept_for_an_image_whose_encoding_will_tell_that_it_is_depth():
    settings = ["cameras.x.image_topic=/a/image", "cameras.x.depth_unit_m=0.01"]
    for encodings, kind in ((None, "image"), ({"/a/image": "16UC1"}, "depth")):
        (sensor,) = found({"/a/image": IMAGE}, *settings, encodings=encodings)
        assert (sensor.kind, sensor.depth_unit_m) == (kind, 0.01)


def test_topics_close_to_a_missing_one_are_told_and_only_those_of_its_type():
    topics = {**SURROUND, "/tf": TF_MESSAGE, "/cams/front/image": IMAGE}
    close = close_topics("/cams/frnt/image", topics, [IMAGE])
    assert close[0] == "/cams/front/image"
    assert len(close) == 3 and {topics[name] for name in close} == {IMAGE}
    assert close_topics("/zzz", topics, [CAMERA_INFO]) == [f"/cams/{s}/camera_info" for s in ("front", "left", "right")]
    assert close_topics("/zzz", topics, [POINT_CLOUD]) == []


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("/zed/rgb/color/rect/image", True), ("/rect/image", True), ("/rectified/image/compressed", True),
        ("/cam0/image_undistorted", True), ("/cam0/undist", True), ("/undistorted/image", True), ("/rect/image_raw", False),
        ("/rect/front/image", False), ("/front/image", False), ("/image", False),
    ],
)  # fmt: skip
def test_a_folder_may_say_that_pictures_are_rectified(topic, expected):
    msgtype = COMPRESSED_IMAGE if topic.endswith("compressed") else IMAGE
    (sensor,) = found({topic: msgtype}, f"cameras.x.image_topic={topic}")
    assert sensor.is_rectified is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("image_rect", True), ("image_rect_color", True), ("rectified", True), ("image_rect/compressed", True),
        ("image_direct", False), ("unrectified", False), ("image_raw", False), ("image_rectangle", False),
    ],
)  # fmt: skip
def test_rectified_is_what_says_so_in_a_word_of_its_own(name, expected):
    msgtype = COMPRESSED_IMAGE if name.endswith("compressed") else IMAGE
    (sensor,) = found({f"/rect/{name}": msgtype}, f"cameras.x.image_topic=/rect/{name}")
    assert sensor.is_rectified is expected


def test_qos_settings_reach_the_sensor():
    (sensor,) = found(SURROUND, "cameras.left.qos_reliability=reliable", "cameras.left.qos_depth=2")
    assert (sensor.qos_reliability, sensor.qos_depth) == ("reliable", 2)
    assert {(s.qos_reliability, s.qos_depth) for s in found(SURROUND)} == {("auto", 5)}


def topics_of(**kinds):
    """Topics of each type, as ``image="/a /b"``."""
    types = {
        "image": IMAGE,
        "compressed": COMPRESSED_IMAGE,
        "info": CAMERA_INFO,
        "cloud": POINT_CLOUD,
        "status": MAP_STATUS,
    }
    return {topic: types[kind] for kind, names in kinds.items() for topic in names.split()}


@pytest.mark.parametrize(
    ("topics", "infos"),
    [
        # below the image, one level up, and far up where there is no other camera
        (topics_of(image="/front/image_raw", info="/front/image_raw/camera_info"), ["/front/image_raw/camera_info"]),
        (topics_of(image="/front/color/image_raw", info="/front/camera_info"), ["/front/camera_info"]),
        (topics_of(compressed="/front/image/compressed", info="/camera_info"), ["/camera_info"]),
        # two cameras in one folder
        (topics_of(image="/cams/left /cams/right", info="/cams/left/camera_info /cams/right/camera_info"),
         ["/cams/left/camera_info", "/cams/right/camera_info"]),
        (topics_of(image="/cams/left_image_raw /cams/right_image_raw", info="/cams/left_camera_info /cams/right_camera_info"),
         ["/cams/left_camera_info", "/cams/right_camera_info"]),
        (topics_of(image="/cams/image_left /cams/image_right", info="/cams/camera_info_left /cams/camera_info_right"),
         ["/cams/camera_info_left", "/cams/camera_info_right"]),
        # a depth image beside it means the same device, and shares
        (topics_of(image="/cam/image_raw /cam/depth/image_raw", info="/cam/camera_info /cam/depth/camera_info"),
         ["/cam/camera_info"]),
    ],
)  # fmt: skip
def test_a_camera_finds_its_own_camera_info(topics, infos):
    assert [s.info_topic for s in found(topics)] == infos


def test_a_camera_takes_no_other_cameras_camera_info():
    """The rear camera has none: what lies above it is the main camera's, or could be either's."""
    owned = topics_of(image="/robot/image_raw /robot/rear/image_raw", info="/robot/camera_info")
    assert [(s.topic, s.info_topic) for s in found(owned)] == [("/robot/image_raw", "/robot/camera_info")]
    shared = topics_of(image="/robot/front/image_raw /robot/rear/image_raw", info="/robot/camera_info")
    assert [s.info_topic for s in found(shared)] == ["/robot/front/camera_info", "/robot/rear/camera_info"]
    neighbours = topics_of(image="/cams/left /cams/right", info="/cams/camera_info")
    assert [s.info_topic for s in found(neighbours)] == ["/cams/left/camera_info", "/cams/right/camera_info"]
    (rear,) = found(owned, "cameras.rear.image_topic=/robot/rear/image_raw")
    assert rear.info_topic == "/robot/rear/camera_info"  # which is not there: the node and the doctor say so


def test_two_cameras_in_one_folder_without_intrinsics_are_both_named():
    topics = topics_of(image="/cams/left /cams/right /front/image_raw", info="/front/camera_info")
    assert [s.topic for s in found(topics)] == ["/front/image_raw"]
    assert left_out_cameras(load_config(), topics) == ["/cams/left", "/cams/right"]


def test_forms_of_one_picture_are_one_camera():
    topics = topics_of(
        image="/cam/image_raw /cam/image_rect /cam/image_rect_color /cam/image_mono", info="/cam/camera_info"
    )
    assert [s.topic for s in found(topics)] == ["/cam/image_raw"]


@pytest.mark.parametrize(
    ("topic", "encoding", "content"),
    [
        # "depth" in the camera's name does not hide its colour image
        ("/depth_camera/image_raw", "", "picture"),
        ("/depth_camera/image_raw", "rgb8", "picture"),
        ("/depth_camera/depth/image_raw", "", "depth"),
        ("/front_depth/color/image_raw", "", "picture"),
        ("/front_depth/image_raw", "bgr8", "picture"),
        ("/front_depth/image_raw", "", "depth"),
        ("/depthai/rgb/image_raw", "", "picture"),
        ("/front_depth/color/image_raw/compressed", "jpeg", "picture"),
        # depth by encoding
        ("/cam/image", "16UC1", "depth"),
        ("/cam/image", "32FC1", "depth"),
        ("/cam/image/compressedDepth", "16UC1; compressedDepth rvl", "depth"),
        ("/cam/image/compressedDepth", "", "depth"),
        ("/cam/depth/image/compressed", "16UC1; png compressed ", "depth"),
        # 16 bits that are no depth
        ("/cam/image", "mono16", "picture"),
        ("/cam/depth/image", "mono16", "depth"),
        ("/thermal/image_raw", "mono16", "picture"),
        ("/thermal/image_raw", "16UC1", "neither"),
        ("/zed/confidence/confidence_map", "32FC1", "neither"),
        ("/stereo/disparity", "32FC1", "neither"),
        ("/lidar/signal_image", "16UC1", "neither"),
        # depth in colours for people
        ("/cam/depth/image_color", "rgb8", "neither"),
        ("/cam/depth_view", "bgr8", "neither"),
    ],
)
def test_what_an_image_topic_holds(topic, encoding, content):
    assert topic_names.content(topic, encoding) == content


def test_a_raw_topic_without_messages_loses_against_a_full_compressed_one():
    topics = topics_of(image="/cam/image_raw", compressed="/cam/image_raw/compressed", info="/cam/camera_info")
    assert [s.topic for s in found(topics)] == ["/cam/image_raw"]
    (sensor,) = discover_sensors(load_config(), topics, silent={"/cam/image_raw"})
    assert sensor.topic == "/cam/image_raw/compressed"


@pytest.mark.parametrize("node", ["/occupancy_nn", "/robot1/mapper"])
def test_own_outputs_are_never_inputs(node):
    topics = topics_of(
        image=f"/front/image_raw {node}/front/depth", info=f"/front/camera_info {node}/front/camera_info",
        cloud=f"/points {node}/occupied_voxels {node}/edges", status=f"{node}/status",
    )  # fmt: skip
    assert [s.topic for s in found(topics)] == ["/front/image_raw"]
    assert found(topics, "source=depth") == ()
    assert [s.topic for s in found(topics, "source=lidar")] == ["/points"]


def test_clouds_that_are_no_sweeps_are_left_alone():
    topics = topics_of(
        cloud="/velodyne_points /cloud_registered /octomap_point_cloud_centers /rtabmap/cloud_map /global/points"
    )
    assert [s.topic for s in found(topics, "source=lidar")] == ["/velodyne_points"]


def test_the_unit_of_depth_and_the_largest_picture_reach_the_sensor():
    topics = topics_of(image="/cam/depth/image_raw", info="/cam/depth/camera_info")
    settings = ("source=depth", "cameras.d.image_topic=/cam/depth/image_raw", "cameras.d.depth_unit_m=0.0001")
    (sensor,) = found(topics, *settings, "max_image_pixels=1000000")
    assert (sensor.depth_unit_m, sensor.max_pixels) == (0.0001, 1_000_000)
