# SPDX-License-Identifier: Apache-2.0
"""Our bytes against rclpy's own: each reads the other's, and where both write the same message, every byte agrees."""

import importlib

import numpy as np
import pytest

pytest.importorskip("rclpy")
from rclpy.serialization import deserialize_message, serialize_message

from occupancy_nn_ros.errors import ImageError, LayoutError, OccupancyError, UnknownEncodingError
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages import decode, images, maps, names, sensors, status
from occupancy_nn_ros.messages.status import NodeStatus
from occupancy_nn_ros.messages.typestore import deserialize, serialize
from occupancy_nn_ros.values import CameraModel, GridSlice, LatticeWindow, MapView, StampedTransform

STAMP = 1_700_000_000_123_456_789
RNG = np.random.default_rng(3)
POSE = StampedTransform(STAMP, "odom", "base_link", make_transform((1, 2, 3), (0.1, 0.2, 0.3, 0.9)))
MODEL = CameraModel(64, 48, np.array([[40.0, 0, 32], [0, 41, 24], [0, 0, 1]]), "plumb_bob", np.arange(5) * 0.01)
PIXELS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
VOXELS = maps.OccupiedVoxels(
    RNG.normal(size=(33, 3)).astype(np.float32), RNG.random(33, dtype=np.float32),
    RNG.integers(0, 7, 33).astype(np.uint8), RNG.integers(0, 256, (33, 3)).astype(np.uint8),
)  # fmt: skip
NOTHING = maps.OccupiedVoxels(
    np.zeros((0, 3), np.float32), np.zeros(0, np.float32), np.zeros(0, np.uint8), np.zeros((0, 3), np.uint8)
)
VIEW = MapView(
    STAMP, "odom", LatticeWindow(0.2, (-3, 4, -1), (5, 4, 3)), np.eye(4),
    RNG.integers(-1, 2, (5, 4, 3)).astype(np.int8),
    RNG.random((5, 4, 3), dtype=np.float32), RNG.integers(0, 7, (5, 4, 3)).astype(np.uint8),
)  # fmt: skip
STATUS = NodeStatus(
    STAMP, "odom", "mapping", 7, 4.5, 0.25, ("front", "b"), (120, 7), ("queue full",), (3,),
    ("total",), (90.0,), (140.0,),
)  # fmt: skip

ENCODED = {
    "nav_msgs/OccupancyGrid": maps.encode_occupancy_grid(
        GridSlice(STAMP, "odom", 0.2, (-1.4, 2.0, 0.5), RNG.choice(np.array([-1, 0, 100], np.int8), (7, 4)))
    ),
    "occupancy_nn_ros/VoxelGrid": maps.encode_voxel_grid(VIEW),
    "occupancy_nn_ros/MapStatus": status.encode_map_status(STATUS),
    "diagnostic_msgs/DiagnosticArray": status.encode_diagnostics(STATUS, "occupancy_nn"),
    "sensor_msgs/PointCloud2": maps.encode_occupied_cloud(STAMP, "odom", VOXELS),
    "sensor_msgs/PointCloud2 (xyz)": sensors.encode_point_cloud(STAMP, "lidar", VOXELS.points_m),
    "sensor_msgs/PointCloud2 (empty)": maps.encode_occupied_cloud(STAMP, "odom", NOTHING),
    "visualization_msgs/MarkerArray": maps.encode_cube_markers(STAMP, "odom", VOXELS, 0.2),
    "visualization_msgs/MarkerArray (empty)": maps.encode_cube_markers(STAMP, "map", NOTHING, 0.2),
    "sensor_msgs/Image": sensors.encode_image(STAMP, "cam", PIXELS),
    "sensor_msgs/Image (depth)": sensors.encode_depth_image(STAMP, "cam", np.full((3, 5), 1.5, np.float32)),
    "sensor_msgs/CompressedImage": sensors.encode_compressed_image(STAMP, "cam", PIXELS),
    "sensor_msgs/CameraInfo": sensors.encode_camera_info(STAMP, "cam", MODEL),
    "tf2_msgs/TFMessage": sensors.encode_tf([POSE, POSE]),
    "nav_msgs/Odometry": sensors.encode_odometry(POSE),
}


def ros_type(name):
    """The generated class of a message; our own exist only where the interfaces have been built."""
    package, kind = name.split(" ")[0].split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError):
        pytest.skip(f"no generated Python code for {name}")


@pytest.mark.parametrize("name", ENCODED)
def test_rclpy_reads_our_bytes_and_writes_the_same(name):
    """Byte for byte, but for the padding between fields, which Fast CDR leaves as it finds it."""
    cdr = ENCODED[name]
    package, kind = name.split(" ")[0].split("/")
    again = bytes(serialize_message(deserialize_message(cdr, ros_type(name))))
    assert 0 <= len(again) - len(cdr) < 4  # the last word may be filled up
    differs = np.frombuffer(again[: len(cdr)], np.uint8) != np.frombuffer(cdr, np.uint8)
    assert not np.frombuffer(cdr, np.uint8)[differs].any()  # ours are zero there ...
    assert serialize(deserialize(f"{package}/msg/{kind}", again[: len(cdr)])) == cdr  # ... and they are padding


def stamped(kind, frame):
    message = ros_type(kind)()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(STAMP, 10**9)
    message.header.frame_id = frame
    return message


def test_we_read_images_of_rclpy():
    message = stamped("sensor_msgs/Image", "cam")
    message.height, message.width, message.step, message.encoding = 5, 7, 24, "bgr8"
    message.data = np.pad(PIXELS[..., ::-1].reshape(5, 21), ((0, 0), (0, 3))).tobytes()
    header, decoded = images.decode_image(names.IMAGE, serialize_message(message))
    assert (header.stamp_ns, header.frame_id) == (STAMP, "cam")
    np.testing.assert_array_equal(decoded, PIXELS)


def test_we_read_camera_info_of_rclpy():
    message = stamped("sensor_msgs/CameraInfo", "cam")
    message.height, message.width, message.distortion_model = 48, 64, "plumb_bob"
    message.k, message.d = MODEL.K.reshape(-1), MODEL.D.tolist()
    _, model = decode.decode_camera_info(serialize_message(message))
    np.testing.assert_array_equal(model.K, MODEL.K)
    np.testing.assert_array_equal(model.D, MODEL.D)
    assert (model.width, model.height, model.distortion_model) == (64, 48, "plumb_bob")


def test_we_read_transforms_and_poses_of_rclpy():
    message, edge = ros_type("tf2_msgs/TFMessage")(), stamped("geometry_msgs/TransformStamped", "odom")
    edge.child_frame_id = "base_link"
    edge.transform.translation.x, edge.transform.rotation.w, edge.transform.rotation.z = 1.5, 0.6, 0.8
    message.transforms = [edge]
    (read,) = decode.decode_tf(serialize_message(message))
    assert (read.stamp_ns, read.target_frame, read.source_frame) == (STAMP, "odom", "base_link")
    np.testing.assert_allclose(read.T_target_source, make_transform((1.5, 0, 0), (0, 0, 0.8, 0.6)), atol=1e-12)
    pose = stamped("geometry_msgs/PoseStamped", "map")
    pose.pose.position.y, pose.pose.orientation.w = -2.0, 1.0
    read = decode.decode_pose(names.POSE_STAMPED, serialize_message(pose))
    np.testing.assert_allclose(read.T_target_source, make_transform((0, -2, 0), (0, 0, 0, 1)))
    odometry = stamped("nav_msgs/Odometry", "odom")
    odometry.child_frame_id, odometry.pose.pose.position.z, odometry.pose.pose.orientation.w = "base", 3.0, 1.0
    read = decode.decode_pose(names.ODOMETRY, serialize_message(odometry))
    assert (read.target_frame, read.source_frame, read.T_target_source[2, 3]) == ("odom", "base", 3.0)


def test_point_clouds_agree_with_sensor_msgs_py():
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2")
    cloud = deserialize_message(ENCODED["sensor_msgs/PointCloud2"], ros_type("sensor_msgs/PointCloud2"))
    read = point_cloud2.read_points(cloud, field_names=("x", "y", "z", "probability"))
    got = np.stack([read[name] for name in ("x", "y", "z", "probability")], axis=1)
    np.testing.assert_array_equal(got, np.column_stack([VOXELS.points_m, VOXELS.probability]))
    points = np.array([[1, 2, 3], [np.nan, 0, 0], [4, 5, 6]], np.float32)
    made = point_cloud2.create_cloud_xyz32(cloud.header, points)
    _, decoded = decode.decode_point_cloud(serialize_message(made))
    np.testing.assert_array_equal(decoded, points[[0, 2]])


def test_images_agree_with_cv_bridge():
    bridge = pytest.importorskip("cv_bridge").CvBridge()
    for encoding, pixels in (("rgb8", PIXELS), ("bgr8", PIXELS), ("mono8", np.ascontiguousarray(PIXELS[..., 0]))):
        cdr = sensors.encode_image(STAMP, "cam", pixels, encoding)
        expected = bridge.imgmsg_to_cv2(deserialize_message(cdr, ros_type("sensor_msgs/Image")), "rgb8")
        np.testing.assert_array_equal(images.decode_image(names.IMAGE, cdr)[1], expected)
    deep = sensors.encode_image(STAMP, "cam", PIXELS.astype(np.uint16) * 251, "rgb16")
    expected = bridge.imgmsg_to_cv2(deserialize_message(deep, ros_type("sensor_msgs/Image")), "rgb8")
    np.testing.assert_array_equal(images.decode_image(names.IMAGE, deep)[1], expected)


DEEP = np.arange(4 * 6 * 3, dtype=np.uint16).reshape(4, 6, 3) * 800


@pytest.mark.parametrize(
    ("encoding", "pixels", "rgb"),
    [
        ("16UC3", DEEP, np.round(DEEP[..., ::-1] / 257)),
        ("32FC3", (DEEP / 65535).astype(np.float32), np.round(DEEP[..., ::-1] / 257)),
        ("64FC1", DEEP[..., 0] / 65535, np.repeat(np.round(DEEP[..., :1] / 257), 3, axis=2)),
    ],
)
def test_cv_bridge_reads_pictures_in_encodings_that_the_own_table_lacks(encoding, pixels, rgb):
    pytest.importorskip("cv_bridge", reason="cv_bridge is not installed; it comes with a ROS distribution")
    from occupancy_nn_ros.ros.further_decoders import installed_decoders

    cdr = sensors.encode_image(STAMP, "cam", pixels, encoding)
    with pytest.raises(UnknownEncodingError, match=encoding):
        images.decode_image(names.IMAGE, cdr)
    np.testing.assert_allclose(installed_decoders().image(cdr), rgb, atol=1)


def test_cv_bridge_reads_depth_in_doubles_and_refuses_what_is_no_picture():
    pytest.importorskip("cv_bridge", reason="cv_bridge is not installed; it comes with a ROS distribution")
    from occupancy_nn_ros.ros.further_decoders import installed_decoders

    depth = np.linspace(0.5, 4, 24).reshape(4, 6)
    further = installed_decoders()
    stored = further.depth(sensors.encode_image(STAMP, "cam", depth, "64FC1"))
    np.testing.assert_array_equal(images.to_metres(stored, 0.0), depth.astype(np.float32))
    for encoding, pixels in (("16SC2", np.zeros((4, 6, 2), np.int16)), ("32FC3", DEEP.astype(np.float32))):
        with pytest.raises(ImageError, match=encoding):
            further.image(sensors.encode_image(STAMP, "cam", pixels, encoding))
    with pytest.raises(ImageError, match="made_up"):
        further.image(sensors.encode_image(STAMP, "cam", DEEP, "made_up"))


def test_sensor_msgs_py_reads_clouds_whose_steps_are_wrong():
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2")
    from occupancy_nn_ros.ros.further_decoders import installed_decoders

    points = np.array([[1, 2, 3], [np.nan, 0, 0], [4, 5, 6]], np.float32)
    made = point_cloud2.create_cloud_xyz32(stamped("nav_msgs/Odometry", "lidar").header, points)
    made.row_step = 0
    cdr = serialize_message(made)
    with pytest.raises(LayoutError):
        decode.decode_point_cloud(cdr)
    np.testing.assert_array_equal(installed_decoders().cloud(cdr), points[[0, 2]])
    made.width = 30
    with pytest.raises(LayoutError, match="sensor_msgs_py"):
        installed_decoders().cloud(serialize_message(made))


@pytest.mark.parametrize("length", [0, 3, 11, 20])
def test_damaged_bytes_are_refused_where_rclpy_would_throw(length):
    with pytest.raises(OccupancyError):
        decode.decode_tf(ENCODED["tf2_msgs/TFMessage"][:length])
