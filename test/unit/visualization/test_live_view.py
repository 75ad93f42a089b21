# SPDX-License-Identifier: Apache-2.0
"""The viewer must never cost the map anything but a copy; what it is shown is what is in the map."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import MissingDependencyError
from occupancy_nn_ros.values import CameraModel, LatticeWindow, MapView, PosedDepth, PosedImage, VoxelState
from occupancy_nn_ros.visualization import live_view, rerun_log
from occupancy_nn_ros.visualization.live_view import LiveView, open_file, viewer_command
from occupancy_nn_ros.visualization.rerun_log import MAX_VOXELS, occupied_boxes
from occupancy_nn_ros.visualization.snapshot import Snapshot


def view_of(*occupied, shape=(6, 5, 4), origin=(-3, 2, -1)):
    state = np.full(shape, VoxelState.FREE, np.int8)
    classes = np.zeros(shape, np.uint8)
    for cell in occupied:
        state[cell], classes[cell] = VoxelState.OCCUPIED, 5
    return MapView(
        1_700_000_000_000_000_000, "odom", LatticeWindow(0.5, origin, shape), np.eye(4), state, state * 1.0, classes
    )


def snapshot():
    model = CameraModel(32, 24, np.array([[20.0, 0, 15.5], [0, 20, 11.5], [0, 0, 1]]), "none", np.zeros(0))
    image = PosedImage("front/left", 1, np.full((24, 32, 3), 90, np.uint8), model, np.eye(4))
    depth = PosedDepth("front/left", 1, np.full((24, 32), 2.0, np.float32), model, np.eye(4))
    return Snapshot((image,), (depth,), view_of((1, 2, 3), (0, 0, 0)), {"predict": 12.0}, {"worker busy": 3})


def test_boxes_stand_where_the_voxels_are():
    centers, colors = occupied_boxes(view_of((1, 2, 3), (0, 0, 0)), "class")
    np.testing.assert_allclose(centers, [(-1.25, 1.25, -0.25), (-0.75, 2.25, 1.25)])
    assert (colors == (220, 60, 80)).all()  # persons


def test_of_too_many_boxes_the_nearest_are_shown(monkeypatch):
    monkeypatch.setattr(rerun_log, "MAX_VOXELS", 2)
    centers, _ = occupied_boxes(view_of((5, 0, 0), (0, 4, 3), (3, 0, 1), origin=(-3, 0, -1)), "height")
    assert MAX_VOXELS > 100_000
    assert sorted(centers[:, 0].tolist()) == [0.25, 1.25]


class StuckRecording:
    """A recording whose viewer reads nothing until it is let."""

    def __init__(self):
        self.may_go, self.flushed = threading.Event(), 0

    def flush(self, timeout_sec):
        self.may_go.wait(timeout_sec)
        self.flushed += 1

    def disconnect(self):
        self.may_go.set()


class NoLog:
    def __init__(self, recording, grid, color_by):
        self.written = []

    def write(self, shown):
        self.written.append(shown)


@pytest.fixture
def stuck(monkeypatch):
    monkeypatch.setattr(live_view, "RerunLog", NoLog)
    monkeypatch.setattr(live_view, "SEND_TIMEOUT_S", 20.0)
    return StuckRecording()


def test_while_a_viewer_does_not_read_nothing_waits_and_nothing_is_queued(stuck):
    with LiveView(stuck, Config()) as view:
        assert view.wants()
        view.offer(snapshot())
        asked = [view.wants() for _ in range(50)]
        assert not any(asked)
        assert (view.left_out, view.shown) == (50, 0)
        stuck.may_go.set()
        end = time.monotonic() + 5
        while not view.wants() and time.monotonic() < end:
            time.sleep(0.01)
        assert view.shown == 1


def test_a_viewer_that_waits_loses_nothing(stuck):
    stuck.may_go.set()
    with LiveView(stuck, Config(), waits=True) as view:
        for _ in range(20):
            assert view.wants()
            view.offer(snapshot())
    assert (view.shown, view.left_out) == (20, 0)


def test_a_viewer_that_was_closed_is_said_and_costs_nothing_more(stuck):
    viewer = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    viewer.wait()
    with LiveView(stuck, Config(), viewer) as view:
        view.offer(snapshot())
        view._thread.join(5)
        assert "ended with status 3" in view.problem
        assert "mapping goes on" in view.problem
        assert not view.wants()


def test_only_this_machine_is_served_unless_asked_otherwise():
    assert "--bind=127.0.0.1" in viewer_command("web", live_view.LOOPBACK, 9000)
    assert "--web-viewer-port=9001" in viewer_command("web", live_view.LOOPBACK, 9000)
    assert "--serve-web" not in viewer_command("window", live_view.LOOPBACK, 9000)


def test_without_the_sdk_the_command_that_installs_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'occupancy-nn-ros\[view\]'"):
        open_file(tmp_path / "map.rrd", Config())


def test_a_file_holds_every_entity(tmp_path):
    pytest.importorskip("rerun", reason="the Rerun SDK is not installed")
    path = tmp_path / "map.rrd"
    with open_file(path, Config()) as view:
        assert view.wants()
        view.offer(snapshot())
    assert (view.shown, view.problem) == (1, "")
    printed = subprocess.run(
        [sys.executable, "-m", "rerun", "rrd", "print", "-v", str(path)], capture_output=True, text=True, check=True
    ).stdout
    for entity in (
        "/map/voxels", "/map/ceiling", "/map/grid", "/map/path", "/map/robot", "/map/cameras/front_left/image",
        "/map/depth/front_left/image", "/grid", "/latency_ms/predict", "/dropped/worker_busy",
    ):  # fmt: skip
        assert entity in printed, entity
