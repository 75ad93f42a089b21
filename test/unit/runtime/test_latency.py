# SPDX-License-Identifier: Apache-2.0
import pytest

from occupancy_nn_ros.runtime.latency import KEPT, LatencyRecorder


def test_percentiles_are_of_what_came_last():
    recorder = LatencyRecorder()
    for n in range(2 * KEPT):
        recorder.add({"decode": n * 1e-3})
    (latency,) = recorder.summary().values()
    assert latency.p50_ms == pytest.approx(1.5 * KEPT - 0.5)
    assert latency.p95_ms == pytest.approx(1.95 * KEPT - 0.95)
    assert recorder.newest("decode") == pytest.approx((2 * KEPT - 1) * 1e-3)
    assert recorder.newest("predict") == 0
