# SPDX-License-Identifier: Apache-2.0
"""Threads that wait must not take the time of those they wait for."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from occupancy_nn_ros.compute.threads import use_threads
from occupancy_nn_ros.compute.waiting import PASSIVE, SINGLE
from occupancy_nn_ros.config import NetworkConfig
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.values import CameraModel, Keyframe, LatticeWindow, PosedImage

ROOT = Path(__file__).resolve().parents[3]

LOADED = "any(name in sys.modules for name in ('numpy', 'torch'))"


def started(code, **more):
    environment = {name: value for name, value in os.environ.items() if name not in PASSIVE | SINGLE} | more
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_command_waits_passively_before_torch_is_loaded():
    code = (
        "import os, sys\nfrom occupancy_nn_ros.cli import main\n"
        f"seen = {LOADED}\n"
        "main.main([])\nprint('before', seen, os.environ['OMP_WAIT_POLICY'])"
    )
    assert started(code)[-3:] == ["before", "False", "PASSIVE"]
    assert started(code, OMP_WAIT_POLICY="ACTIVE")[-1] == "ACTIVE"


def test_opencv_keeps_to_the_thread_that_calls_it_in_this_process_and_in_those_it_starts():
    code = (
        "from occupancy_nn_ros.compute.waiting import wait_passively\nwait_passively()\nimport cv2, subprocess, sys\n"
        "print(cv2.getNumThreads(), flush=True)\nsubprocess.run([sys.executable, '-c', 'import cv2; print(cv2.getNumThreads())'])"
    )
    assert started(code) == ["1", "1"]
    assert started(code, OPENCV_FOR_THREADS_NUM="2") == ["2", "2"]


def test_matrices_are_multiplied_by_the_thread_that_asks():
    """Whatever library numpy and scipy multiply with, its threads would spin between the small matrices of pose alignment."""
    code = (
        "from occupancy_nn_ros.compute.waiting import wait_passively\nwait_passively()\nimport numpy as np, os, scipy.linalg, time\n"
        "a = np.ones((600, 600))\nbefore = len(os.listdir('/proc/self/task'))\na @ a\nscipy.linalg.solve(a + 600 * np.eye(600), a)\n"
        "print(before, len(os.listdir('/proc/self/task')))"
    )
    assert started(code) == ["1", "1"]


def test_the_node_waits_passively_before_torch_is_loaded():
    lines = (ROOT / "scripts" / "occupancy_node").read_text().splitlines()
    before = "\n".join(lines[: next(n for n, line in enumerate(lines) if "ros.running" in line)])
    code = f"{before}\nimport os, sys\nprint({LOADED}, os.environ['OMP_WAIT_POLICY'])"
    assert started(code) == ["False", "PASSIVE"]


@pytest.fixture
def keyframes():
    model = CameraModel(320, 240, np.array([[200.0, 0, 160], [0, 200, 120], [0, 0, 1]]), "none", np.zeros(0))
    rng = np.random.default_rng(1)

    def keyframe(n):
        poses = [np.eye(4) for _ in range(4)]
        for camera, pose in enumerate(poses):
            pose[:3, 3] = 0.1 * n, 0.1 * camera, 0
        pictures = rng.integers(0, 256, (4, 240, 320, 3), dtype=np.uint8)
        return Keyframe(n, poses[0], tuple(PosedImage(str(c), n, pictures[c], model, T) for c, T in enumerate(poses)))

    return [keyframe(n) for n in range(4)]


@pytest.fixture
def neighbours(request):
    """Other processes that compute all the time."""
    command = [sys.executable, "-c", "while True: sum(range(10_000))"]
    others = [subprocess.Popen(command) for _ in range(request.param)]
    yield
    for other in others:
        other.kill()
        other.wait()


@pytest.mark.parametrize("neighbours", [0, 4], indirect=True)
def test_two_threads_take_hardly_more_time_of_the_processor_than_one(keyframes, tiny_model, neighbours):
    """Spinning would take twice as much, or many times that beside other processes; counted in processor time, not on a clock."""
    window, spent = LatticeWindow(0.2, (-30, -30, -8), (60, 60, 16)), {}
    try:
        for count in (1, 2):
            predictor = Predictor.load(str(tiny_model), NetworkConfig(device="cpu", threads=count, canvas_pixels=49152))
            predictor.predict(keyframes[0], window)
            start = time.process_time()
            for keyframe in keyframes[1:]:
                predictor.predict(keyframe, window)
            spent[count] = time.process_time() - start
    finally:
        use_threads(0)
    assert spent[2] < 1.7 * spent[1]
