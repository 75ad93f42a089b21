# SPDX-License-Identifier: Apache-2.0
"""The command line as a shell meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_reader_that_has_read_enough_ends_a_command_quietly():
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [
        sys.executable,
        "-c",
        "from occupancy_nn_ros.cli.main import main; raise SystemExit(main(['info', 'nano']))",
    ]
    with os.fdopen(write_end, "wb") as output:
        ended = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 0
    assert ended.stderr == ""
