# SPDX-License-Identifier: Apache-2.0
import struct

import cv2
import numpy as np
import pytest
from message_samples import rvl_nibbles

from occupancy_nn_ros.errors import ImageError, MessageError
from occupancy_nn_ros.messages import images, names, sensors
from occupancy_nn_ros.messages.picture_headers import PictureLimits
from occupancy_nn_ros.messages.typestore import serialize

STAMP = 1_700_000_000_123_456_789
SOLID = {"red": (230, 20, 30), "green": (15, 210, 40), "blue": (25, 35, 220), "grey": (90, 90, 90)}


def raw(pixels, encoding, /, *, padding=0, is_bigendian=0, **changes):
    """Image bytes with ``padding`` bytes after each row."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    fields = {
        "header": sensors.header(STAMP, "/camera"),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "encoding": encoding,
        "is_bigendian": is_bigendian,
        "step": rows.shape[1],
        "data": rows.reshape(-1),
    }
    return serialize(sensors.make("sensor_msgs/Image", **{**fields, **changes}))


def compressed(data, form):
    data = np.frombuffer(bytes(data), np.uint8)
    message = sensors.make(
        "sensor_msgs/CompressedImage", header=sensors.header(STAMP, "camera"), format=form, data=data
    )
    return serialize(message)


def picture(rng, height=6, width=8):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def mosaic(pattern, color, height=16, width=16):
    """What a sensor behind a colour filter sees of one colour: the pattern is named by its first two rows."""
    channel = {"r": 0, "g": 1, "b": 2}
    cells = np.array([[color[channel[pattern[0]]], color[channel[pattern[1]]]],
                      [color[channel[pattern[2]]], color[channel[pattern[3]]]]], np.uint8)  # fmt: skip
    return np.tile(cells, (height // 2, width // 2))


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "arrange"),
    [
        ("rgb8", lambda p: p),
        ("bgr8", lambda p: p[..., ::-1]),
        ("8UC3", lambda p: p[..., ::-1]),
        ("rgba8", lambda p: np.dstack([p, np.full(p.shape[:2], 9, np.uint8)])),
        ("bgra8", lambda p: np.dstack([p[..., ::-1], np.full(p.shape[:2], 9, np.uint8)])),
    ],
)
def test_colour_encodings(rng, encoding, arrange, padding):
    expected = picture(rng)
    header, decoded = images.decode_image(names.IMAGE, raw(arrange(expected), encoding, padding=padding))
    assert (header.stamp_ns, header.frame_id) == (STAMP, "camera")
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize(
    ("encoding", "arrange"),
    [
        ("rgb16", lambda p: p),
        ("bgr16", lambda p: p[..., ::-1]),
        ("bgra16", lambda p: np.dstack([p[..., ::-1], np.full(p.shape[:2], 9, np.uint16)])),
        ("mono16", lambda p: p[..., 1]),
    ],
)
def test_two_bytes_a_channel_are_scaled_to_one(rng, encoding, arrange, is_bigendian):
    deep = rng.integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    deep[0, :2] = [[0, 128, 129], [65535, 65406, 65407]]
    if encoding == "mono16":
        deep = np.repeat(deep[..., 1:2], 3, axis=2)
    sent = np.ascontiguousarray(arrange(deep)).astype(">u2" if is_bigendian else "<u2")
    _, decoded = images.decode_image(names.IMAGE, raw(sent, encoding, padding=3, is_bigendian=is_bigendian))
    np.testing.assert_array_equal(decoded, np.round(deep / 257).astype(np.uint8))


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["mono16", "bayer_rggb16", "mono16; png compressed "])
def test_a_sensor_of_fewer_bits_fills_the_whole_range(rng, bits, kind):
    """Most drivers leave 12 bits at the lower end of 16, which would be a night sixteen times too dark."""
    deep = rng.integers(0, 1 << bits, (16, 16)).astype("<u2")
    deep[0, 0] = (1 << bits) - 1
    if "png" in kind:
        decoded = of_jpeg(cv2.imencode(".png", deep)[1].tobytes(), kind)
    else:
        _, decoded = images.decode_image(names.IMAGE, raw(deep, kind))
    scaled = np.round(deep * (255 / ((1 << bits) - 1))).astype(np.uint8)
    if kind.startswith("bayer"):
        scaled = images.decode_image(names.IMAGE, raw(scaled, "bayer_rggb8"))[1][..., 0]
    np.testing.assert_allclose(decoded[..., 0].astype(int), scaled, atol=1)


def test_noise_in_the_dark_stays_dark(rng):
    """A covered lens of 12 bits: a black level and its noise do not become a picture."""
    deep = (64 + rng.integers(0, 12, (48, 64))).astype("<u2")
    _, decoded = images.decode_image(names.IMAGE, raw(deep, "mono16"))
    assert decoded.max() - decoded.min() <= 3


@pytest.mark.parametrize(
    ("name", "usual"),
    [("RGB8", "rgb8"), ("bgr8 ", "bgr8"), ("rgb", "rgb8"), ("BGRA", "bgra8"), ("8uc3", "8UC3"), ("YUY2", "yuyv"), ("yuyv422", "yuyv"),
     ("Y16", "mono16"), ("gray8", "mono8"), ("NV12", "nv12"), ("yuv420p", "i420"), ("BAYER_RGGB8", "bayer_rggb8")],
)  # fmt: skip
def test_what_drivers_call_their_encodings(rng, name, usual):
    channels = {"rgb8": 3, "bgr8": 3, "8UC3": 3, "bgra8": 4, "yuyv": 2, "mono16": 2}.get(usual, 1)
    rows = 9 if usual in ("nv12", "i420") else 6
    data = rng.integers(0, 256, (rows, 8 * channels), dtype=np.uint8)
    decoded = [
        images.decode_image(names.IMAGE, raw(data, encoding, width=8, height=6, step=8 * channels))[1] for encoding in (name, usual)
    ]  # fmt: skip
    assert decoded[0].shape == (6, 8, 3)
    np.testing.assert_array_equal(*decoded)


@pytest.mark.parametrize("step", [0, 8])
def test_a_step_left_empty_or_counted_in_pixels(rng, step):
    expected = picture(rng)
    _, decoded = images.decode_image(names.IMAGE, raw(expected, "rgb8", step=step))
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_becomes_three_equal_channels(rng, encoding):
    grey = rng.integers(0, 256, (5, 7), dtype=np.uint8)
    _, decoded = images.decode_image(names.IMAGE, raw(grey, encoding, padding=3))
    np.testing.assert_array_equal(decoded, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("color", SOLID.values(), ids=SOLID)
@pytest.mark.parametrize(("encoding", "order"), [
    ("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv"),
])  # fmt: skip
def test_yuv422_by_the_definition(encoding, order, color):
    """ITU-R BT.601, studio range, written out."""
    r, g, b = (c / 255 for c in color)
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112 * b
    v = 128 + 112 * r - 93.786 * g - 18.214 * b
    parts = {"y": round(y), "u": round(u), "v": round(v)}
    pair = [parts[c] for c in order]
    pixels = np.tile(np.array(pair, np.uint8), (4, 3)).reshape(4, 6, 2)
    _, decoded = images.decode_image(names.IMAGE, raw(pixels, encoding, padding=2))
    assert decoded.shape == (4, 6, 3)
    np.testing.assert_allclose(decoded.reshape(-1, 3).astype(int), [color] * 24, atol=3)


@pytest.mark.parametrize("color", SOLID.values(), ids=SOLID)
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_mosaic_of_one_colour_gives_that_colour(pattern, color, bits):
    cells = mosaic(pattern, color)
    sent = cells if bits == 8 else (cells.astype("<u2") * 257)
    _, decoded = images.decode_image(names.IMAGE, raw(sent, f"bayer_{pattern}{bits}", padding=4))
    assert decoded.shape == (16, 16, 3)
    np.testing.assert_allclose(decoded[2:-2, 2:-2].reshape(-1, 3).astype(int), [color] * 144, atol=1)


def test_depth_in_millimetres_and_metres(rng):
    millimetres = rng.integers(0, 60_000, (4, 6), dtype=np.uint16)
    for encoding in ("16UC1", "mono16"):
        _, depth = images.decode_depth(names.IMAGE, raw(millimetres, encoding, padding=2))
        np.testing.assert_allclose(depth, millimetres / 1000, rtol=1e-6)
    swapped = raw(millimetres.astype(">u2"), "16UC1", padding=2, is_bigendian=1)
    np.testing.assert_allclose(images.decode_depth(names.IMAGE, swapped)[1], millimetres / 1000, rtol=1e-6)
    metres = rng.uniform(0.1, 50, (4, 6)).astype(np.float32)
    _, depth = images.decode_depth(names.IMAGE, raw(metres, "32FC1", padding=4))
    np.testing.assert_array_equal(depth, metres)
    swapped = raw(metres.astype(">f4"), "32FC1", is_bigendian=1)
    np.testing.assert_array_equal(images.decode_depth(names.IMAGE, swapped)[1], metres)


def test_depth_rows_may_lie_at_odd_offsets(rng):
    metres = rng.uniform(0.1, 50, (4, 6)).astype(np.float32)
    np.testing.assert_array_equal(images.decode_depth(names.IMAGE, raw(metres, "32FC1", padding=3))[1], metres)


def test_what_is_no_measurement_becomes_zero():
    metres = np.array([[np.nan, np.inf, -np.inf, -1.0, 0.0, 2.5]], np.float32)
    _, depth = images.decode_depth(names.IMAGE, raw(metres, "32FC1"))
    np.testing.assert_array_equal(depth, [[0, 0, 0, 0, 0, 2.5]])


def test_the_largest_number_is_no_distance():
    """65535 where nothing was seen would carve 65 m of free space through every wall."""
    raw_depth = np.array([[1500, 65535], [0, 65534]], "<u2")
    _, depth = images.decode_depth(names.IMAGE, raw(raw_depth, "16UC1"))
    np.testing.assert_allclose(depth, [[1.5, 0], [0, 65.534]])
    _, depth = images.decode_depth(names.IMAGE, raw(raw_depth, "16UC1"), unit_m=0.01)
    assert depth[0, 1] == 0


def test_encoded_depth_comes_back(rng):
    metres = rng.uniform(0.2, 60, (5, 4)).astype(np.float32)
    metres[0, 0], metres[0, 1], metres[0, 2] = 0, np.nan, 80
    _, depth = images.decode_depth(names.IMAGE, sensors.encode_depth_image(STAMP, "camera", metres))
    expected = np.where(np.isfinite(metres) & (metres < 65), metres, 0)
    np.testing.assert_allclose(depth, expected, atol=0.0006)


def test_png_is_exact_and_jpeg_is_close(rng):
    expected = cv2.resize(picture(rng), (64, 48), interpolation=cv2.INTER_CUBIC)
    png = cv2.imencode(".png", expected[..., ::-1])[1].tobytes()
    header, decoded = images.decode_image(names.COMPRESSED_IMAGE, compressed(png, "rgb8; png compressed bgr8"))
    assert header.stamp_ns == STAMP
    np.testing.assert_array_equal(decoded, expected)
    cdr = sensors.encode_compressed_image(STAMP, "camera", expected, quality=98)
    _, decoded = images.decode_image(names.COMPRESSED_IMAGE, cdr)
    assert np.abs(decoded.astype(int) - expected).mean() < 6
    assert np.abs(decoded.astype(int) - expected[..., ::-1]).mean() > 20  # channels are not swapped


def test_grey_jpeg_becomes_rgb():
    jpeg = cv2.imencode(".jpg", np.full((16, 16), 130, np.uint8))[1].tobytes()
    _, decoded = images.decode_image(names.COMPRESSED_IMAGE, compressed(jpeg, "mono8; jpeg compressed "))
    np.testing.assert_array_equal(decoded, np.full((16, 16, 3), 130))


def test_jpeg_with_a_large_comment_before_its_size():
    jpeg = cv2.imencode(".jpg", np.full((16, 24, 3), 130, np.uint8))[1].tobytes()
    comment = b"\xff\xfe" + struct.pack(">H", 65000) + bytes(64998)
    _, decoded = images.decode_image(names.COMPRESSED_IMAGE, compressed(jpeg[:2] + comment * 2 + jpeg[2:], "jpeg"))
    assert decoded.shape == (16, 24, 3)


def test_compressed_depth_of_both_kinds(rng):
    millimetres = rng.integers(0, 60_000, (6, 8), dtype=np.uint16)
    png = cv2.imencode(".png", millimetres)[1].tobytes()
    cdr = compressed(struct.pack("<iff", 0, 0, 0) + png, "16UC1; compressedDepth png")
    np.testing.assert_allclose(images.decode_depth(names.COMPRESSED_IMAGE, cdr)[1], millimetres / 1000, rtol=1e-6)
    plain = compressed(png, "16UC1; png compressed ")
    np.testing.assert_allclose(images.decode_depth(names.COMPRESSED_IMAGE, plain)[1], millimetres / 1000, rtol=1e-6)
    # As the transport writes it: quantised inverse depth, A and B from the range and the quantisation step.
    far, step = 10.0, 100.0
    a = step * (step + 1)
    b = 1 - a / far
    metres = rng.uniform(0.5, 9.5, (6, 8)).astype(np.float32)
    quantised = np.round(a / metres + b).astype(np.uint16)
    quantised[0, 0] = 0
    png = cv2.imencode(".png", quantised)[1].tobytes()
    cdr = compressed(struct.pack("<iff", 0, a, b) + png, "32FC1; compressedDepth png")
    _, depth = images.decode_depth(names.COMPRESSED_IMAGE, cdr)
    assert depth[0, 0] == 0
    np.testing.assert_allclose(depth.reshape(-1)[1:], metres.reshape(-1)[1:], rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "nv24"}, "encoding is 'nv24'"),
        ({"encoding": "rgb16"}, "step is 24, expected at least 48"),
        ({"encoding": ""}, "encoding"),
        ({"width": 0}, "0x6"),
        ({"height": 0}, "8x0"),
        ({"width": 40_000}, "size"),
        ({"step": 23}, "step is 23, expected at least 24"),
        ({"height": 7}, "144 bytes, expected 168"),
        ({"data": np.zeros(0, np.uint8)}, "0 bytes"),
    ],
)
def test_unusable_pixels_are_refused(rng, changes, words):
    with pytest.raises(ImageError, match=words):
        images.decode_image(names.IMAGE, raw(picture(rng), "rgb8", **changes))


def test_last_row_needs_no_padding(rng):
    expected = picture(rng)
    rows = np.pad(expected.reshape(6, 24), ((0, 0), (0, 8))).reshape(-1)[:-8]
    _, decoded = images.decode_image(names.IMAGE, raw(expected, "rgb8", step=32, data=rows))
    np.testing.assert_array_equal(decoded, expected)


def test_step_of_a_single_row_may_lie_without_harm(rng):
    expected = picture(rng, height=1)
    _, decoded = images.decode_image(names.IMAGE, raw(expected, "rgb8", step=2**32 - 1))
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (3, 3), (2, 3)])
@pytest.mark.parametrize("encoding", ["bayer_rggb8", "bayer_gbrg8", "yuv422", "yuv422_yuy2", "mono8"])
def test_tiny_images_decode_or_are_refused(encoding, size):
    channels = (2,) if encoding.startswith("yuv") else ()
    cdr = raw(np.full((*size, *channels), 100, np.uint8), encoding)
    try:
        _, decoded = images.decode_image(names.IMAGE, cdr)
    except ImageError:
        assert encoding != "mono8"
    else:
        assert decoded.shape == (*size, 3)


def huge_png(width, height):
    png = bytearray(cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes())
    struct.pack_into(">II", png, 16, width, height)
    return bytes(png)


def huge_jpeg(width, height):
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, height, width)
    return bytes(jpeg)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\x00" * 50, "neither"),
        (b"BM" + bytes(60), "neither"),
        (cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()[:30], "cut off"),
        (b"\xff\xd8\xff\xe0\xff\xff", "cut off"),
        (b"\xff\xd8\xff\xe0\x00\x02\xff\xd9", "damaged"),
        (cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()[:-20], "cut off"),
        (huge_png(30_000, 30_000), "30000x30000"),
        (huge_png(2**31, 1), "2147483648x1"),
        (huge_jpeg(30_000, 30_000), "30000x30000"),
    ],
)
def test_broken_pictures_are_refused_before_anything_is_allocated(data, words):
    with pytest.raises(ImageError, match=words):
        images.decode_image(names.COMPRESSED_IMAGE, compressed(data, "jpeg"))


def test_colour_and_depth_are_not_mixed_up(rng):
    with pytest.raises(ImageError, match="colour"):
        images.decode_image(names.COMPRESSED_IMAGE, compressed(b"abc", "16UC1; compressedDepth png"))
    with pytest.raises(ImageError, match="depth image"):
        images.decode_depth(names.IMAGE, raw(picture(rng), "rgb8"))
    with pytest.raises(ImageError, match="expected one channel"):
        data = cv2.imencode(".png", picture(rng))[1].tobytes()
        images.decode_depth(names.COMPRESSED_IMAGE, compressed(data, "png"))
    with pytest.raises(ImageError, match="12-byte header"):
        images.decode_depth(names.COMPRESSED_IMAGE, compressed(b"abc", "16UC1; compressedDepth png"))
    with pytest.raises(ImageError):
        images.decode_depth(names.COMPRESSED_IMAGE, compressed(bytes(200), "16UC1; compressedDepth rvl"))


def test_a_message_of_another_type_is_refused(rng):
    with pytest.raises(MessageError):
        images.decode_image("sensor_msgs/msg/Nonsense", raw(picture(rng), "rgb8"))
    with pytest.raises(MessageError):
        images.decode_image(names.IMAGE, sensors.encode_tf([]))


def test_bytes_may_be_a_memoryview(rng):
    expected = picture(rng)
    _, decoded = images.decode_image(names.IMAGE, memoryview(bytearray(raw(expected, "rgb8"))))
    np.testing.assert_array_equal(decoded, expected)


def planar(encoding, color, height=8, width=12):
    """One colour by ITU-R BT.601, studio range: Y, then U and V at half the resolution."""
    r, g, b = (c / 255 for c in color)
    y = round(16 + 65.481 * r + 128.553 * g + 24.966 * b)
    u = round(128 - 37.797 * r - 74.203 * g + 112 * b)
    v = round(128 + 112 * r - 93.786 * g - 18.214 * b)
    pair = {"nv12": (u, v), "nv21": (v, u), "i420": (u, v), "yv12": (v, u)}[encoding]
    chroma = np.tile(np.array(pair, np.uint8), height * width // 4)
    if encoding in ("i420", "yv12"):
        chroma = np.repeat(np.array(pair, np.uint8), height * width // 4)
    return np.concatenate([np.full(height * width, y, np.uint8), chroma]).reshape(height * 3 // 2, width)


@pytest.mark.parametrize("color", SOLID.values(), ids=SOLID)
@pytest.mark.parametrize("encoding", ["nv12", "nv21", "i420", "yv12"])
@pytest.mark.parametrize("padding", [0, 4])
def test_planar_yuv_by_the_definition(encoding, color, padding):
    if padding and encoding in ("i420", "yv12"):
        pytest.skip("rows of U and V are half as long: no padding is defined for them")
    cdr = raw(planar(encoding, color), encoding, padding=padding, height=8)
    _, decoded = images.decode_image(names.IMAGE, cdr)
    assert decoded.shape == (8, 12, 3)
    np.testing.assert_allclose(decoded.reshape(-1, 3).astype(int), [color] * 96, atol=3)


def test_planar_yuv_whose_step_counts_all_planes():
    """Some drivers give one and a half times the width as the step of rows that are as long as the width."""
    _, decoded = images.decode_image(names.IMAGE, raw(planar("nv12", SOLID["red"]), "nv12", height=8, step=18))
    np.testing.assert_allclose(decoded[4, 6], SOLID["red"], atol=3)
    with pytest.raises(ImageError, match="143 bytes"):
        short = planar("nv12", SOLID["red"]).reshape(-1)[:-1]
        images.decode_image(names.IMAGE, raw(planar("nv12", SOLID["red"]), "nv12", height=8, data=short))
    with pytest.raises(ImageError, match="expected even numbers"):
        images.decode_image(names.IMAGE, raw(planar("nv12", SOLID["red"]), "nv12", height=7))


def test_four_unnamed_channels_are_bgra(rng):
    expected = picture(rng)
    sent = np.dstack([expected[..., ::-1], np.full(expected.shape[:2], 9, np.uint8)])
    np.testing.assert_array_equal(images.decode_image(names.IMAGE, raw(sent, "8UC4"))[1], expected)


def smooth(rng, height=48, width=64):
    return cv2.resize(picture(rng), (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(pixels, *options):
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95, *options])[1].tobytes()


def of_jpeg(data, form="jpeg", **options):
    return images.decode_image(names.COMPRESSED_IMAGE, compressed(data, form), **options)[1]


def test_the_order_of_channels_is_the_one_that_the_format_tells(rng):
    """image_transport names what it gave to its JPEG library, which takes everything for BGR."""
    pixels = smooth(rng)
    swapped = of_jpeg(jpeg(pixels), "rgb8; jpeg compressed rgb8")
    assert np.abs(swapped.astype(int) - pixels).mean() < 6
    usual = of_jpeg(jpeg(pixels[..., ::-1]), "rgb8; jpeg compressed bgr8")
    np.testing.assert_allclose(usual.astype(int), swapped, atol=12)
    assert (of_jpeg(jpeg(pixels[..., ::-1]), "bgr8; jpeg compressed bgr8") == usual).all()


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_compressed_mosaic_is_one_of_its_pattern(pattern, suffix):
    data = cv2.imencode(suffix, mosaic(pattern, SOLID["red"]), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    decoded = of_jpeg(data, f"bayer_{pattern}8; jpeg compressed ")
    np.testing.assert_allclose(decoded[4:-4, 4:-4].reshape(-1, 3).astype(int), [SOLID["red"]] * 64, atol=6)


def test_sixteen_bits_of_a_png_are_scaled_to_eight(rng):
    deep = rng.integers(0, 65536, (16, 16)).astype(np.uint16)
    decoded = of_jpeg(cv2.imencode(".png", deep)[1].tobytes(), "mono16; png compressed ")
    np.testing.assert_allclose(decoded[..., 0].astype(int), np.round(deep / 257), atol=1)


def test_exif_does_not_turn_a_picture_whose_calibration_does_not_turn(rng):
    data = jpeg(smooth(rng))
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x0112, 3, 1, 6) + bytes(4)
    exif = b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff
    np.testing.assert_array_equal(of_jpeg(data[:2] + exif + data[2:]), of_jpeg(data))


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)], ids=["baseline", "progressive"])
def test_a_jpeg_without_its_end_mark_is_whole_and_one_cut_off_is_not(rng, options):
    data = jpeg(smooth(rng), *options)
    assert data[-2:] == b"\xff\xd9"
    np.testing.assert_array_equal(of_jpeg(data[:-2]), of_jpeg(data))
    np.testing.assert_array_equal(of_jpeg(data[:-2] + bytes(3)), of_jpeg(data))
    for missing in (40, 100, len(data) // 3):
        with pytest.raises(ImageError, match="cut off"):
            of_jpeg(data[:-missing])


def test_the_end_mark_of_a_thumbnail_is_not_the_pictures_own(rng):
    data = jpeg(smooth(rng))
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 4) + b"\xff\xd9ab"
    with pytest.raises(ImageError, match="cut off"):
        of_jpeg((data[:2] + thumbnail + data[2:])[:-60])


@pytest.mark.parametrize("quality", [80, 101])
def test_webp_of_both_kinds(rng, quality):
    pixels = smooth(rng)
    data = cv2.imencode(".webp", pixels[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
    assert np.abs(of_jpeg(data, "webp").astype(int) - pixels).mean() < (0.01 if quality > 100 else 8)
    with pytest.raises(ImageError, match="cut off"):
        of_jpeg(data[:-9], "webp")


def huge_webp(width, height):
    body = (
        b"VP8X"
        + struct.pack("<I", 10)
        + bytes(4)
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body + bytes(20)


RVL = "16UC1; compressedDepth rvl"
BOMBS = {
    "jpeg": (huge_jpeg(5000, 5000), "jpeg"),
    "png": (huge_png(5000, 5000), "png"),
    "webp": (huge_webp(5000, 5000), "webp"),
    "rvl": (bytes(12) + struct.pack("<ii", 5000, 5000) + bytes(8), RVL),
    "compressedDepth": (bytes(12) + huge_png(5000, 5000), "16UC1; compressedDepth png"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_header_where_camera_info_tells_the_size(name):
    """25 megapixels would be allowed by themselves."""
    data, form = BOMBS[name]
    decode = images.decode_depth if "Depth" in form else images.decode_image
    with pytest.raises(ImageError, match="image is 5000x5000, camera_info says 64x48"):
        decode(names.COMPRESSED_IMAGE, compressed(data, form), PictureLimits(sizes=((64, 48),)))
    with pytest.raises(ImageError, match="expected at most 1000000 pixels"):
        decode(names.COMPRESSED_IMAGE, compressed(data, form), PictureLimits(max_pixels=1_000_000))


def test_a_jpeg_of_a_thousand_scans_is_refused(rng):
    data = jpeg(smooth(rng))
    scan = data[data.index(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match="more than 100 scans"):
        of_jpeg(data[:-2] + scan * 1000 + data[-2:])


@pytest.mark.parametrize("holes", [0.0, 0.3, 1.0])
def test_rvl_is_exact(rng, holes):
    millimetres = rng.integers(1, 65536, (31, 45)).astype(np.uint16)
    millimetres[rng.random((31, 45)) < holes] = 0
    cdr = compressed(bytes(12) + rvl_nibbles(millimetres), RVL)
    _, depth = images.decode_depth(names.COMPRESSED_IMAGE, cdr)
    np.testing.assert_allclose(depth, millimetres / 1000, rtol=1e-6)
    _, tenths = images.decode_depth(names.COMPRESSED_IMAGE, cdr, unit_m=0.0001)
    np.testing.assert_allclose(tenths, millimetres / 10_000, rtol=1e-6)


def test_damaged_rvl_raises_image_errors_or_is_another_image(rng):
    millimetres = (rng.integers(1, 4000, (12, 16)) * (rng.random((12, 16)) < 0.7)).astype(np.uint16)
    stream = rvl_nibbles(millimetres)
    with pytest.raises(ImageError, match=r"ends after|holds a run"):
        images.decode_depth(names.COMPRESSED_IMAGE, compressed(bytes(12) + stream[:-40], RVL))
    for _ in range(300):
        changed = bytearray(stream)
        changed[int(rng.integers(8, len(stream)))] = int(rng.integers(256))
        try:
            _, depth = images.decode_depth(names.COMPRESSED_IMAGE, compressed(bytes(12) + changed, RVL))
        except ImageError:
            continue
        assert depth.shape == (12, 16)
