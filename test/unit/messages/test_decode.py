# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from occupancy_nn_ros.errors import CalibrationError, MessageError, TransformError
from occupancy_nn_ros.geometry.cameras import check_camera, fit_to_image, project
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages import decode, names, sensors
from occupancy_nn_ros.messages.headers import peek_header, restamp
from occupancy_nn_ros.messages.typestore import serialize
from occupancy_nn_ros.values import CameraModel, StampedTransform

STAMP = 1_700_000_000_123_456_789
MODEL = CameraModel(
    640,
    480,
    np.array([[420.0, 0, 322], [0, 421, 238], [0, 0, 1]]),
    "plumb_bob",
    np.array([-0.1, 0.02, 1e-3, -1e-3, 0.0]),
)
TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}


def info(**changes):
    fields = {
        "header": sensors.header(STAMP, "cam"), "height": 480, "width": 640, "distortion_model": "plumb_bob",
        "d": MODEL.D, "k": MODEL.K.reshape(-1), "r": np.eye(3).reshape(-1), "p": np.arange(12.0), "binning_x": 0,
        "binning_y": 0, "roi": roi(0, 0, 0, 0),
    }  # fmt: skip
    return serialize(sensors.make("sensor_msgs/CameraInfo", **{**fields, **changes}))


def roi(x, y, width, height):
    return sensors.make(
        "sensor_msgs/RegionOfInterest", x_offset=x, y_offset=y, height=height, width=width, do_rectify=False
    )


def cloud(points, dtype, *, bigendian=False, row_padding=0, height=1, **changes):
    """PointCloud2 bytes from a structured dtype."""
    data = np.zeros(len(points), dtype)
    for axis, name in enumerate("xyz"):
        if name in data.dtype.names:
            data[name] = points[:, axis]
    step, width = data.dtype.itemsize, len(points) // height
    rows = np.pad(data.view(np.uint8).reshape(height, width * step), ((0, 0), (0, row_padding)), constant_values=255)
    fields = [
        sensors.make("sensor_msgs/PointField", name=n, offset=data.dtype.fields[n][1],
                     datatype=TYPES[data.dtype[n].str[1:]], count=1)
        for n in data.dtype.names
    ]  # fmt: skip
    message = {
        "header": sensors.header(STAMP, "lidar"), "height": height, "width": width, "fields": fields,
        "is_bigendian": bigendian, "point_step": step, "row_step": rows.shape[1], "data": rows.reshape(-1),
        "is_dense": False,
    }  # fmt: skip
    return serialize(sensors.make("sensor_msgs/PointCloud2", **{**message, **changes}))


def layout(order="<", **fields):
    """Structured dtype from name=(type, offset)."""
    end = max(offset + np.dtype(kind).itemsize for kind, offset in fields.values())
    return np.dtype(
        {"names": list(fields), "formats": [order + kind for kind, _ in fields.values()],
         "offsets": [offset for _, offset in fields.values()], "itemsize": end + 3}
    )  # fmt: skip


PLAIN = layout(x=("f4", 0), y=("f4", 4), z=("f4", 8))


@pytest.mark.parametrize("kind", ["plumb_bob", "rational_polynomial", "equidistant"])
def test_camera_info_round_trip(kind):
    D = np.arange({"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}[kind]) * 1e-3
    model = CameraModel(640, 480, MODEL.K, kind, D)
    header, decoded = decode.decode_camera_info(sensors.encode_camera_info(STAMP, "cam", model))
    assert (header.stamp_ns, header.frame_id) == (STAMP, "cam")
    assert (decoded.width, decoded.height, decoded.distortion_model) == (640, 480, kind)
    np.testing.assert_array_equal(decoded.K, model.K)
    np.testing.assert_array_equal(decoded.D, D)


def test_ideal_pinhole_goes_out_as_plumb_bob_of_zeros():
    model = CameraModel(64, 48, MODEL.K, "none", np.zeros(0))
    _, decoded = decode.decode_camera_info(sensors.encode_camera_info(STAMP, "cam", model))
    assert decoded.distortion_model == "plumb_bob"
    assert decoded.D.size in (0, 5) and not decoded.D.any()


def test_empty_distortion_model_is_plumb_bob():
    _, decoded = decode.decode_camera_info(info(distortion_model="", d=np.zeros(0)))
    assert decoded.distortion_model == "plumb_bob"


def test_region_of_interest_moves_the_principal_point():
    _, decoded = decode.decode_camera_info(info(roi=roi(100, 60, 200, 120)))
    assert (decoded.width, decoded.height) == (200, 120)
    np.testing.assert_allclose(decoded.K, MODEL.K - [[0, 0, 100], [0, 0, 60], [0, 0, 0]])
    whole, _ = project(MODEL, [(0.1, -0.2, 1.5)])
    cut, _ = project(decoded, [(0.1, -0.2, 1.5)])
    np.testing.assert_allclose(cut, whole - (100, 60))


def test_binning_scales_as_image_geometry_does():
    _, decoded = decode.decode_camera_info(info(binning_x=2, binning_y=4, roi=roi(100, 60, 200, 120)))
    assert (decoded.width, decoded.height) == (100, 30)
    np.testing.assert_allclose(decoded.K, [[210, 0, 111], [0, 105.25, 44.5], [0, 0, 1]])
    np.testing.assert_array_equal(decoded.D, MODEL.D)


def test_region_outside_the_image_is_refused():
    with pytest.raises(CalibrationError, match="region of interest 600x120"):
        decode.decode_camera_info(info(roi=roi(100, 60, 600, 120)))


def test_rectified_camera_info_uses_the_projection():
    P = np.array([[300.0, 0, 320, -30], [0, 300, 240, 0], [0, 0, 1, 0]])
    _, decoded = decode.decode_camera_info(info(p=P.reshape(-1)), is_rectified=True)
    np.testing.assert_array_equal(decoded.K, P[:, :3])
    assert decoded.distortion_model == "none" and not decoded.D.size


def test_transforms_come_back_in_order(rng):
    sent = [
        StampedTransform(STAMP + n, f"parent{n}", f"child{n}", make_transform(rng.normal(size=3), rng.normal(size=4)))
        for n in range(5)
    ]
    received = decode.decode_tf(sensors.encode_tf(sent))
    assert [(t.stamp_ns, t.target_frame, t.source_frame) for t in received] == [
        (STAMP + n, f"parent{n}", f"child{n}") for n in range(5)
    ]
    for got, expected in zip(received, sent, strict=True):
        np.testing.assert_allclose(got.T_target_source, expected.T_target_source, atol=1e-12)
    assert decode.decode_tf(sensors.encode_tf([])) == []


def test_leading_slashes_of_old_frames_go_away():
    sent = StampedTransform(STAMP, "/odom", "/base_link", np.eye(4))
    (received,) = decode.decode_tf(sensors.encode_tf([sent]))
    assert (received.target_frame, received.source_frame) == ("odom", "base_link")


def test_odometry_is_the_transform_from_child_to_parent():
    pose = make_transform((1, 2, 3), (0.1, 0.2, 0.3, 0.9))
    received = decode.decode_pose(
        names.ODOMETRY, sensors.encode_odometry(StampedTransform(STAMP, "odom", "base_link", pose))
    )
    assert (received.stamp_ns, received.target_frame, received.source_frame) == (STAMP, "odom", "base_link")
    np.testing.assert_allclose(received.T_target_source, pose, atol=1e-12)


def posed(kind, position, orientation):
    point = sensors.make("geometry_msgs/Point", **dict(zip("xyz", position, strict=True)))
    turn = sensors.make("geometry_msgs/Quaternion", **dict(zip("xyzw", orientation, strict=True)))
    pose = sensors.make("geometry_msgs/Pose", position=point, orientation=turn)
    header = sensors.header(STAMP, "/map")
    if kind == names.TRANSFORM_STAMPED:
        shift = sensors.make("geometry_msgs/Vector3", **dict(zip("xyz", position, strict=True)))
        transform = sensors.make("geometry_msgs/Transform", translation=shift, rotation=turn)
        return serialize(
            sensors.make("geometry_msgs/TransformStamped", header=header, child_frame_id="eye", transform=transform)
        )
    if kind == names.POSE_WITH_COVARIANCE_STAMPED:
        pose = sensors.make("geometry_msgs/PoseWithCovariance", pose=pose, covariance=np.zeros(36))
    return serialize(sensors.make(kind.replace("/msg", ""), header=header, pose=pose))


@pytest.mark.parametrize(
    ("kind", "child"),
    [(names.POSE_STAMPED, ""), (names.POSE_WITH_COVARIANCE_STAMPED, ""), (names.TRANSFORM_STAMPED, "eye")],
)
def test_poses_of_other_types(kind, child):
    pose = decode.decode_pose(kind, posed(kind, (1.0, 2.0, 3.0), (0.0, 0.0, 0.0, 2.0)))
    assert (pose.stamp_ns, pose.target_frame, pose.source_frame) == (STAMP, "map", child)
    np.testing.assert_allclose(pose.T_target_source, make_transform((1, 2, 3), (0, 0, 0, 1)))


@pytest.mark.parametrize("bad", [((np.nan, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)), ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))])
def test_poses_that_are_none_are_refused(bad):
    with pytest.raises(TransformError, match="transform from 'pose' to 'map'"):
        decode.decode_pose(names.POSE_STAMPED, posed(names.POSE_STAMPED, *bad))


@pytest.mark.parametrize(
    "dtype",
    [
        PLAIN,
        layout(z=("f4", 1), x=("f4", 13), intensity=("u1", 7), y=("f4", 21)),
        layout(x=("f8", 0), y=("f4", 9), z=("f8", 16)),
        layout(x=("i2", 0), y=("i4", 2), z=("i1", 6)),
    ],
    ids=["plain", "odd offsets", "mixed floats", "integers"],
)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("row_padding", [0, 5])
def test_clouds_of_any_layout(rng, dtype, order, row_padding):
    points = np.round(rng.uniform(-100, 100, (12, 3)))
    swapped = dtype.newbyteorder(order)
    cdr = cloud(points, swapped, bigendian=order == ">", row_padding=row_padding, height=3)
    header, decoded = decode.decode_point_cloud(cdr)
    assert (header.stamp_ns, header.frame_id) == (STAMP, "lidar")
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, points.astype(np.float32))


def test_points_that_are_not_finite_go_away(rng):
    points = rng.normal(size=(9, 3))
    points[2, 0], points[4, 1], points[8, 2] = np.nan, np.inf, -np.inf
    _, decoded = decode.decode_point_cloud(cloud(points, PLAIN))
    np.testing.assert_allclose(decoded, points[[0, 1, 3, 5, 6, 7]], rtol=1e-6)
    points = np.array([[1e300, 0, 0], [1, 2, 3]])  # no float32 holds it
    _, decoded = decode.decode_point_cloud(cloud(points, layout(x=("f8", 0), y=("f8", 8), z=("f8", 16))))
    np.testing.assert_array_equal(decoded, [[1, 2, 3]])


def test_encoded_cloud_comes_back(rng):
    points = rng.normal(size=(100, 3)).astype(np.float32)
    np.testing.assert_array_equal(decode.decode_point_cloud(sensors.encode_point_cloud(STAMP, "l", points))[1], points)
    empty = sensors.encode_point_cloud(STAMP, "l", np.zeros((0, 3), np.float32))
    assert decode.decode_point_cloud(empty)[1].shape == (0, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"point_step": 0}, "does not fit"),
        ({"row_step": 3}, "does not fit"),
        ({"width": 2**32 - 1}, "expected at most"),
        ({"width": 40}, "does not fit"),
        ({"point_step": 8}, "field z at offset 8"),
        ({"data": np.zeros(17, np.uint8)}, "17 bytes"),
        ({"fields": []}, "expected x, y, z"),
    ],
)
def test_clouds_that_do_not_fit_are_refused(rng, changes, words):
    with pytest.raises(MessageError, match=words):
        decode.decode_point_cloud(cloud(rng.normal(size=(4, 3)), PLAIN, **changes))


def test_a_field_of_unknown_type_is_refused(rng):
    fields = [sensors.make("sensor_msgs/PointField", name=n, offset=0, datatype=9, count=1) for n in "xyz"]
    with pytest.raises(MessageError, match="datatype 9"):
        decode.decode_point_cloud(cloud(rng.normal(size=(4, 3)), PLAIN, fields=fields))


def test_peeked_header_agrees_with_the_whole_message():
    for stamp, frame in ((0, ""), (STAMP, "/cam"), (-5_000_000_001, "a/b"), (2**31 * 10**9 - 1, "é")):
        header = peek_header(sensors.encode_camera_info(stamp, frame, MODEL))
        assert (header.stamp_ns, header.frame_id) == (stamp, frame.lstrip("/"))


def test_a_restamped_message_differs_in_its_stamp_alone():
    for stamp in (0, -5_000_000_001, 2**31 * 10**9 - 1):
        assert restamp(info(), stamp) == info(header=sensors.header(stamp, "cam"))


def test_peeked_header_in_big_endian():
    cdr = bytes([0, 0, 0, 0]) + (7).to_bytes(4, "big") + (9).to_bytes(4, "big") + (4).to_bytes(4, "big") + b"cam\0"
    header = peek_header(cdr)
    assert (header.stamp_ns, header.frame_id) == (7_000_000_009, "cam")
    assert peek_header(restamp(cdr, 3_000_000_001)).stamp_ns == 3_000_000_001


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b[:12], "12 bytes"),
        (lambda b: b"\x00\x03" + b[2:], "plain CDR"),
        (lambda b: b[:8] + (10**9).to_bytes(4, "little") + b[12:], "nanoseconds"),
        (lambda b: b[:12] + (2**32 - 1).to_bytes(4, "little") + b[16:], "claims 4294967295 bytes"),
        (lambda b: b[:16] + b"\xff\xfe" + b[18:], "UTF-8"),
    ],
)
def test_headers_that_lie_are_refused(change, words):
    with pytest.raises(MessageError, match=words):
        peek_header(change(info()))


def test_sizes_that_are_binned_already_are_seen_by_the_image():
    """A driver that bins, and says so, but gives the size and the intrinsics of what it sends."""
    _, model = decode.decode_camera_info(info(binning_x=2, binning_y=2))
    assert (model.width, model.height) == (320, 240)
    assert fit_to_image(model, 320, 240) is model
    whole = fit_to_image(model, 640, 480)
    assert (whole.width, whole.height, whole.binning) == (640, 480, (1, 1))
    np.testing.assert_array_equal(whole.K, MODEL.K)
    with pytest.raises(CalibrationError, match="image is 160x120, camera_info says 320x240"):
        fit_to_image(model, 160, 120)
    with pytest.raises(CalibrationError, match="image is 1280x960"):  # nothing is binned, so nothing is guessed
        fit_to_image(decode.decode_camera_info(info())[1], 1280, 960)


def test_rectified_pictures_with_an_empty_p_take_k_where_nothing_was_distorted():
    _, model = decode.decode_camera_info(info(p=np.zeros(12), d=np.zeros(5)), is_rectified=True)
    np.testing.assert_array_equal(model.K, MODEL.K)
    assert (model.distortion_model, model.D.size) == ("none", 0)
    with pytest.raises(CalibrationError, match="P is all zero and D is"):
        decode.decode_camera_info(info(p=np.zeros(12)), is_rectified=True)


@pytest.mark.parametrize(
    ("name", "D", "expected", "used"),
    [
        ("pinhole", (0,) * 5, "plumb_bob", 0),
        ("PLUMB_BOB", MODEL.D, "plumb_bob", 5),
        ("radtan", MODEL.D[:4], "plumb_bob", 4),
        ("Plumb Bob", (*MODEL.D, 0, 0, 0), "plumb_bob", 4),
        ("plumb_bob", (0,) * 14, "plumb_bob", 0),
        ("", MODEL.D, "plumb_bob", 5),
        ("fisheye", (0.1, 0.01, -0.02, 0.003), "equidistant", 4),
        ("kannala_brandt4", (0.1, 0.01, -0.02, 0.003, 0, 0, 0, 0), "equidistant", 4),
        ("Kannala-Brandt", (0.1, 0, 0, 0, 0), "equidistant", 4),
        ("Equidistant", (0.1,), "equidistant", 4),
        ("pinhole", (0.4, 0.1, 0, 0, 0.2, 0.5, 0.1, 0.1), "rational_polynomial", 8),
        ("rational_polynomial", (0.4, 0.1, 0, 0, 0.2), "rational_polynomial", 8),
        ("rational_polynomial", (0.4, 0.1, 0, 0, 0.2, 0.5, 0.1, 0.1, 0.01, 0, 0, 0, 0, 0, 0, 0), "rational_polynomial", 12),
    ],
)  # fmt: skip
def test_what_drivers_call_their_lenses(name, D, expected, used):
    D = np.array(D, dtype=np.float64)
    _, model = decode.decode_camera_info(info(distortion_model=name, d=D))
    check_camera(model)
    assert (model.distortion_model, int(model.D.any()) and model.D.size) == (expected, used)
    padded = np.pad(D, (0, 16))[: model.D.size]
    np.testing.assert_array_equal(model.D, padded)


@pytest.mark.parametrize("name", ["ftheta", "double_sphere", "inverse_brown_conrady"])
def test_lenses_that_are_not_known_are_refused_by_name(name):
    with pytest.raises(CalibrationError, match=f"distortion model is '{name}'"):
        check_camera(decode.decode_camera_info(info(distortion_model=name))[1])
