# SPDX-License-Identifier: Apache-2.0
"""Video as robots send it: every picture comes out as it went in, whatever the codec and wherever in its group."""

from fractions import Fraction

import numpy as np
import pytest

from occupancy_nn_ros.errors import ImageError
from occupancy_nn_ros.messages import names, sensors, video
from occupancy_nn_ros.messages.headers import peek_header
from occupancy_nn_ros.messages.picture_headers import PictureLimits
from occupancy_nn_ros.messages.typestore import make, serialize, typestore
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.video_log import VideoLog

GROUP, COUNT = 5, 13
ENCODERS = {"h264": "libx264", "hevc": "libx265"}


def picture(n):
    """Grey that grows by 15 with each picture, and a red part that grows to the right."""
    pixels = np.full((120, 160, 3), 15 * n, np.uint8)
    pixels[:, : 8 * n] = (250, 0, 0)
    return pixels


@pytest.fixture(scope="module", params=ENCODERS)
def stream(request):
    """Name of the codec, and the packets of 13 pictures in groups of 5."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    encoder = av.CodecContext.create(ENCODERS[request.param], "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 160, 120, "yuv420p", Fraction(1, 10)
    encoder.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "g": str(GROUP),
        "x265-params": f"keyint={GROUP}:log-level=0",
    }
    packets = []
    for n in range(COUNT):
        frame = av.VideoFrame.from_ndarray(picture(n), format="rgb24")
        frame.pts = n
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    packets += [bytes(packet) for packet in encoder.encode(None)]
    assert len(packets) == COUNT
    return request.param, packets


def message(msgtype, codec, n, data):
    data = np.frombuffer(data, np.uint8)
    if msgtype == names.COMPRESSED_VIDEO:
        stamp = make("builtin_interfaces/Time", sec=n, nanosec=0)
        told = {"hevc": "h265"}.get(codec, codec)
        return serialize(typestore().types[msgtype](timestamp=stamp, frame_id="cam", data=data, format=told))
    fields = {
        "width": 160,
        "height": 120,
        "encoding": f"{codec};yuv420p;bgr8;bgr8",
        "pts": n,
        "flags": 0,
        "is_bigendian": False,
    }
    return serialize(typestore().types[msgtype](header=sensors.header(n * 10**9, "cam"), data=data, **fields))


@pytest.mark.parametrize("msgtype", names.VIDEO_TYPES)
def test_every_picture_comes_out_as_it_went_in(stream, msgtype):
    codec, packets = stream
    sensor, log = SensorStream("cam", "/video", msgtype), VideoLog()
    messages = [message(msgtype, codec, n, data) for n, data in enumerate(packets)]
    for n, cdr in enumerate(messages):
        log.add(sensor, cdr)
        assert (peek_header(cdr).stamp_ns, peek_header(cdr).frame_id) == (n * 10**9, "cam")
        earlier = log.before(sensor, cdr)
        assert len(earlier) == n % GROUP
        decoded = video.decode_video(msgtype, cdr, earlier)
        assert decoded.shape == (120, 160, 3)
        assert np.abs(decoded.astype(int) - picture(n)).mean() < 6
    late = log.before(sensor, messages[GROUP + 2])  # a frame that waited for its transforms
    assert np.abs(video.decode_video(msgtype, messages[GROUP + 2], late).astype(int) - picture(GROUP + 2)).mean() < 6
    assert log.before(sensor, b"never seen") is None


def test_a_stream_that_is_joined_late_waits_for_a_key_frame(stream):
    codec, packets = stream
    sensor, log = SensorStream("cam", "/video", names.FFMPEG_PACKET), VideoLog()
    messages = [message(names.FFMPEG_PACKET, codec, n, data) for n, data in enumerate(packets)][3:]
    log.add(sensor, messages[0])
    with pytest.raises(ImageError, match="no key frame yet"):
        video.decode_video(names.FFMPEG_PACKET, messages[0], log.before(sensor, messages[0]))
    for cdr in messages[1:3]:
        log.add(sensor, cdr)
    decoded = video.decode_video(names.FFMPEG_PACKET, messages[2], log.before(sensor, messages[2]))
    assert np.abs(decoded.astype(int) - picture(5)).mean() < 6


def test_sizes_codecs_and_damage_are_refused(stream, monkeypatch):
    codec, packets = stream
    cdr = message(names.COMPRESSED_VIDEO, codec, 0, packets[0])
    with pytest.raises(ImageError, match="image is 160x120, camera_info says 64x48"):
        video.decode_video(names.COMPRESSED_VIDEO, cdr, (), PictureLimits(sizes=((64, 48),)))
    with pytest.raises(ImageError, match=r"does not decode|claims to be"):
        video.decode_video(names.COMPRESSED_VIDEO, cdr, (), PictureLimits(max_pixels=5000))
    with pytest.raises(ImageError, match="video is encoded as 'theora', expected one of h264"):
        video.read_packet(names.COMPRESSED_VIDEO, message(names.COMPRESSED_VIDEO, "theora", 0, b"x"))
    junk = message(names.COMPRESSED_VIDEO, codec, 0, packets[0][:40] + bytes(200))
    with pytest.raises(ImageError):
        video.decode_video(names.COMPRESSED_VIDEO, junk, ())


def test_without_pyav_the_way_to_it_is_named(stream, monkeypatch):
    import sys

    codec, packets = stream
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImageError, match=r"needs PyAV: pip install 'occupancy_nn_ros\[video\]'"):
        video.decode_video(names.FFMPEG_PACKET, message(names.FFMPEG_PACKET, codec, 0, packets[0]), ())


def test_pictures_are_not_kept():
    log = VideoLog()
    log.add(SensorStream("cam", "/image", names.IMAGE), b"whatever")
    assert log.before(SensorStream("cam", "/image", names.IMAGE), b"whatever") == ()
