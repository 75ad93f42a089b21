# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from occupancy_nn_ros.messages import names, status
from occupancy_nn_ros.messages.status import NodeStatus
from occupancy_nn_ros.messages.typestore import deserialize, serialize

RUNNING = NodeStatus(
    stamp_ns=1_700_000_000_000_000_005, frame_id="odom", state="mapping", keyframes=2**40, keyframe_rate=4.5,
    map_age=0.25,
    camera_names=("front", "back"), frames_received=(120, 2**35), drop_reasons=("queue full", "no transform"),
    drop_counts=(3, 4), stages=("decode", "total"), latency_p50_ms=(1.5, 90.0), latency_p95_ms=(2.5, 140.0),
    device_memory_bytes=3 << 30,
)  # fmt: skip


def test_map_status_round_trip():
    message = deserialize(names.MAP_STATUS, status.encode_map_status(RUNNING))
    assert (message.header.stamp.nanosec, message.header.frame_id, message.state) == (5, "odom", "mapping")
    assert (message.keyframes, message.device_memory_bytes) == (2**40, 3 << 30)
    assert (message.keyframe_rate, message.map_age) == (4.5, 0.25)
    assert message.camera_names == ["front", "back"]
    np.testing.assert_array_equal(message.frames_received, [120, 2**35])
    assert message.drop_reasons == ["queue full", "no transform"]
    np.testing.assert_array_equal(message.drop_counts, [3, 4])
    assert message.stages == ["decode", "total"]
    np.testing.assert_array_equal(message.latency_p50_ms, [1.5, 90])
    np.testing.assert_array_equal(message.latency_p95_ms, [2.5, 140])


def test_map_status_before_anything_has_come():
    message = deserialize(names.MAP_STATUS, status.encode_map_status(NodeStatus(0)))
    assert (message.state, message.map_age, len(message.camera_names)) == ("waiting", -1.0, 0)


def test_parallel_arrays_must_be_parallel():
    with pytest.raises(ValueError, match="2 names"):
        replace(RUNNING, drop_counts=(1,))


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, 0, "mapping"),
        ({"map_age": 5.1}, 1, "5.1 s old"),
        ({"map_age": 10.5}, 2, "10.5 s"),
        ({"map_age": -1.0}, 2, "no map yet"),
        ({"state": "waiting"}, 2, "waiting"),
        ({"state": "paused", "map_age": 99.0}, 0, "paused"),
        ({"doubts": ("the camera looks up", "odom jumped")}, 1, "mapping; the camera looks up; odom jumped"),
        ({"doubts": ("the camera looks up",), "map_age": 10.5}, 2, "10.5 s"),
    ],
)
def test_level_and_text(changes, level, words):
    got, text = status.diagnose(replace(RUNNING, **changes))
    assert got == level
    assert words in text


def test_rising_drops_warn_and_name_the_reason():
    before = replace(RUNNING, drop_reasons=("queue full",), drop_counts=(3,))
    assert status.diagnose(RUNNING, before) == (1, "4 more drops: no transform")
    assert status.diagnose(RUNNING, RUNNING) == (0, "mapping")


def test_diagnostics_hold_every_figure():
    cdr = status.encode_diagnostics(RUNNING, "occupancy_nn: mapper")
    message = deserialize(names.DIAGNOSTIC_ARRAY, cdr)
    assert serialize(message) == cdr
    (entry,) = message.status
    assert (entry.level, entry.name, entry.message) == (0, "occupancy_nn: mapper", "mapping")
    values = {item.key: item.value for item in entry.values}
    assert len(values) == len(entry.values)
    assert values["keyframes"] == str(2**40)
    assert values["frames from back"] == str(2**35)
    assert values["dropped: no transform"] == "4"
    assert values["total p50 / p95 (ms)"] == "90.0 / 140.0"
    assert values["device memory (MiB)"] == "3072"
