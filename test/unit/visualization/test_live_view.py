# SPDX-License-Identifier: Apache-2.0
"""The viewer must never cost the map anything but a copy; what it is shown is what is in the map."""

import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import MissingDependencyError, OccupancyError
from occupancy_nn_ros.values import CameraModel, LatticeWindow, MapView, PosedDepth, PosedImage, VoxelState
from occupancy_nn_ros.visualization import live_view, rerun_log
from occupancy_nn_ros.visualization.live_view import LiveView, open_file
from occupancy_nn_ros.visualization.rerun_log import MAX_VOXELS, occupied_boxes
from occupancy_nn_ros.visualization.snapshot import Snapshot
from occupancy_nn_ros.visualization.viewer_process import (
    LOOPBACK,
    ViewerProcess,
    file_command,
    is_taken,
    page_address,
    start_viewer,
    viewer_command,
)


def view_of(*occupied, shape=(6, 5, 4), origin=(-3, 2, -1)):
    state = np.full(shape, VoxelState.FREE, np.int8)
    classes = np.zeros(shape, np.uint8)
    for cell in occupied:
        state[cell], classes[cell] = VoxelState.OCCUPIED, 5
    return MapView(
        1_700_000_000_000_000_000, "odom", LatticeWindow(0.5, origin, shape), np.eye(4), state, state * 1.0, classes
    )


def free_port():
    with socket.socket() as one:
        one.bind((LOOPBACK, 0))
        return one.getsockname()[1]


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

    def connect_grpc(self, url):
        self.url = url

    def disconnect(self):
        self.may_go.set()


class StuckAtTheEnd(StuckRecording):
    """Takes everything, and never lets go."""

    def disconnect(self):
        threading.Event().wait(60)


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


def test_a_viewer_that_ends_says_why_at_once_and_costs_nothing_more(stuck):
    said = []
    dying = ViewerProcess(LOOPBACK, free_port(), [sys.executable, "-c", "import sys; sys.exit('no graphics card')"])
    with LiveView(stuck, Config(), dying, say=said.append) as view:
        view.offer(snapshot())
        view._thread.join(5)
        assert said == [view.problem]
        assert "ended with status 1: no graphics card" in view.problem
        assert "the map goes on" in view.problem
        assert not view.wants()
    assert view.shown == 0


ANSWERS_LATE = """
import http.server, sys, time
time.sleep(0.4)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.BaseHTTPRequestHandler).serve_forever()
"""


def test_a_viewer_that_never_lets_go_does_not_keep_the_command_from_ending(stuck, monkeypatch):
    unregistered = []
    monkeypatch.setattr(live_view, "SEND_TIMEOUT_S", 0.1)
    monkeypatch.setattr(
        live_view, "import_rerun", lambda: SimpleNamespace(unregister_shutdown=lambda: unregistered.append(1))
    )
    recording = StuckAtTheEnd()
    with socket.create_server((LOOPBACK, 0)) as other:
        threading.Thread(target=answer_once, args=(other,), daemon=True).start()
        with LiveView(recording, Config(), ViewerProcess(LOOPBACK, other.getsockname()[1])) as view:
            view.offer(snapshot())
    assert unregistered == [1]
    assert view.shown == 1


def answer_once(server):
    connection, _ = server.accept()
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def test_a_viewer_that_starts_slowly_is_waited_for_while_the_map_goes_on(stuck):
    stuck.may_go.set()
    port = free_port()
    late = ViewerProcess(LOOPBACK, port, [sys.executable, "-c", ANSWERS_LATE, str(port)])
    try:
        with LiveView(stuck, Config(), late) as view:
            view.offer(snapshot())
            assert not view.wants()  # it was not shown yet
        assert (view.shown, view.problem) == (1, "")
        assert stuck.url == f"rerun+http://127.0.0.1:{port}/proxy"
    finally:
        late.close()
    assert not is_taken(LOOPBACK, port)


def test_what_listens_already_is_asked_and_left_alone():
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        found = start_viewer("web", LOOPBACK, port)
        assert not found.is_ours
        with pytest.raises(ConnectionError, match="does not answer as a viewer does"):
            found.wait_until_it_answers()
        found.wait()
        found.close()
        assert is_taken(LOOPBACK, port)
        with pytest.raises(OccupancyError, match=rf"listens at port {port} already.*--view-port"):
            file_command(Path("map.rrd"), "web", LOOPBACK, port)


def test_a_window_without_a_screen_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OccupancyError, match="--view web"):
        start_viewer("window", LOOPBACK, free_port())
    monkeypatch.setenv("DISPLAY", ":0")
    assert "--serve-web" not in viewer_command("window", LOOPBACK, 9000)


def test_only_this_machine_is_served_unless_asked_otherwise():
    assert "--bind=127.0.0.1" in viewer_command("web", LOOPBACK, 9000)
    assert "--web-viewer-port=9001" in viewer_command("web", LOOPBACK, 9000)
    assert page_address("0.0.0.0", 9000) == "http://127.0.0.1:9001/?url=rerun%2Bhttp://127.0.0.1:9000/proxy"


class LoggedRecording:
    """Keeps what is logged, and the layouts."""

    def __init__(self):
        self.logged, self.layouts = {}, 0

    def set_time(self, *_, **__):
        pass

    def log(self, entity, *what, static):
        self.logged[entity] = what

    def send_blueprint(self, _):
        self.layouts += 1


def test_depth_has_the_colors_of_the_pictures_red_is_near_and_black_not_known():
    pytest.importorskip("rerun", reason="the Rerun SDK is not installed")
    shown, recording = snapshot(), LoggedRecording()
    depth_m = np.full((24, 32), 0.5, np.float32)
    depth_m[:, 16:], depth_m[0] = 10.0, 0.0
    rerun_log.RerunLog(recording, Config().grid, "height").write(
        replace(shown, depths=(replace(shown.depths[0], depth_m=depth_m),))
    )
    (picture,) = recording.logged["map/depth/front_left/image"]
    pixels = np.asarray(picture.buffer.pa_array[0].as_py(), np.uint8).reshape(24, 32, 3)
    assert (pixels[0] == 0).all()
    assert pixels[5, 5, 0] > 2 * pixels[5, 5, 2]
    assert pixels[5, 20, 2] > 2 * pixels[5, 20, 0]


def test_a_map_without_pictures_is_laid_out_too_and_anew_once_there_are_some():
    pytest.importorskip("rerun", reason="the Rerun SDK is not installed")
    recording = LoggedRecording()
    log, full = rerun_log.RerunLog(recording, Config().grid, "height"), snapshot()
    bare = replace(full, images=(), depths=())
    layouts = []
    for shown in (bare, bare, full, full, bare):
        log.write(shown)
        layouts.append(recording.layouts)
    assert layouts == [1, 1, 2, 2, 2]


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
