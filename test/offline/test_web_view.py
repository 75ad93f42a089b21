# SPDX-License-Identifier: Apache-2.0
"""The page of `--view web` in a real browser: what it draws is looked at pixel by pixel."""

import contextlib
import socket
import time
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from browser import BROWSER, browser

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.values import CameraModel, LatticeWindow, MapView, PosedDepth, PosedImage, VoxelState
from occupancy_nn_ros.visualization.live_view import show_in
from occupancy_nn_ros.visualization.snapshot import Snapshot
from occupancy_nn_ros.visualization.viewer_process import LOOPBACK, page_address, start_viewer

pytest.importorskip("rerun", reason="the Rerun SDK is not installed (extra view)")
PERSON, FRAME_NS = 5, 1_700_000_000_000_000_000
PERSON_RGB, PICTURE_RGB = (220, 60, 80), (40, 200, 120)


def free_ports():
    """A port whose next one is free too."""
    while True:
        with socket.socket() as data, socket.socket() as page:
            data.bind((LOOPBACK, 0))
            with contextlib.suppress(OSError):
                page.bind((LOOPBACK, data.getsockname()[1] + 1))
                return data.getsockname()[1]


def wall_of_persons():
    """A map with a block of voxels that are all persons, and a camera that sees one colour."""
    state = np.full((40, 40, 8), VoxelState.FREE, np.int8)
    state[20:34, 5:35, 1:7] = VoxelState.OCCUPIED
    classes = np.where(state == VoxelState.OCCUPIED, PERSON, 0).astype(np.uint8)
    window = LatticeWindow(0.2, (-20, -20, -1), state.shape)
    view = MapView(FRAME_NS, "odom", window, np.eye(4), state, np.where(state == 1, 0.9, 0.1), classes)
    model = CameraModel(64, 48, np.array([[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]]), "none", np.zeros(0))
    image = PosedImage("front", FRAME_NS, np.full((48, 64, 3), PICTURE_RGB, np.uint8), model, np.eye(4))
    depth = PosedDepth("front", FRAME_NS, np.full((48, 64), 2.0, np.float32), model, np.eye(4))
    return Snapshot((image,), (depth,), view, {"total": 250.0}, {})


def is_served(url):
    try:
        with urllib.request.urlopen(url, timeout=1) as page:
            return page.status == 200
    except (urllib.error.URLError, OSError):
        return False


def share_like(picture, rgb):
    """Share of pixels of about this hue that are no grey."""
    colors = picture.reshape(-1, 3).astype(float)
    wanted = np.array(rgb, float)
    length = np.linalg.norm(colors, axis=1)
    cosine = colors @ wanted / np.maximum(length, 1) / np.linalg.norm(wanted)
    return float(((cosine > 0.985) & (length > 60)).mean())


def shows_both(picture):
    """Whether voxels and the camera's picture are there."""
    return share_like(picture, PERSON_RGB) > 0.02 and share_like(picture, PICTURE_RGB) > 0.005


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_page_shows_voxels_and_pictures(tmp_path):
    port = free_ports()
    config = replace(Config(), outputs=replace(Config().outputs, color_by="class"))
    viewer = start_viewer("web", LOOPBACK, port)
    try:
        with show_in(viewer, config, waits=True) as view:
            for n in range(3):
                assert view.wants(), view.problem
                shown = wall_of_persons()
                view.offer(replace(shown, view=replace(shown.view, stamp_ns=FRAME_NS + n * 10**9)))
        page, end = page_address(LOOPBACK, port), time.monotonic() + 60
        while not is_served(page) and time.monotonic() < end:
            time.sleep(0.1)
        with browser(page, tmp_path / "profile") as shown_page:
            picture = shown_page.picture()
            while not shows_both(picture) and time.monotonic() < end:
                time.sleep(0.5)  # the page loads and compiles for some seconds
                picture = shown_page.picture()
    finally:
        viewer.close()
    assert view.shown == 3
    assert shows_both(picture)
