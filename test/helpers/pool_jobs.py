# SPDX-License-Identifier: Apache-2.0
"""Jobs that other processes import."""

import os
import signal
import time
from pathlib import Path

import torch

from occupancy_nn_ros.compute.threads import threads


def die_once(mark, report):
    """Kills its own process, unless another did so before."""
    if mark is None:
        return os.getpid(), threads(), torch.get_num_threads()
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return "second attempt"
    os.kill(os.getpid(), signal.SIGKILL)


def wait_with_a_file(path, report):
    """Holds a file for as long as it runs."""
    Path(path).touch()
    try:
        report(0.5)
        time.sleep(100)
    finally:
        Path(path).unlink()
