# SPDX-License-Identifier: Apache-2.0
"""The shipped model and the demo's recording on one core and in two gibibytes; refused, with the figure, where it cannot fit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from occupancy_nn_ros.cli.main import main

ROOT = Path(__file__).parents[2]
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from occupancy_nn_ros.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_the_demo_is_mapped_on_one_core_in_two_gibibytes(tmp_path):
    command = [
        "play",
        "demo/drive.mcap",
        "--end",
        "1",
        "--out",
        str(tmp_path),
        "--json",
        "--set",
        "max_memory_mib=2048",
    ]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["keyframes"] == 3 and summary["dropped"] == {}
    assert summary["map"]["occupied"] > 1000
    assert summary["problems"].get("memory") is None
    assert 300 < summary["peak_memory_mib"] < 1024
    assert summary["config"]["sync"]["queue_mib"] == 512


def test_what_is_left_out_is_said(small_bag, tiny_model, tmp_path, capsys):
    options = ["--end", "0.3", "--model", str(tiny_model), "--set", "network.threads=1", "--set", "map.size_xy_m=8"]
    limits = ["--set", "max_memory_mib=3000", "--set", "map.remember_mib=4000"]
    assert main(["play", str(small_bag), "--out", str(tmp_path), *options, *limits]) == 0
    said = capsys.readouterr().out
    assert "max_memory_mib is 3000" in said
    assert "sync.queue_mib is 32 instead of 512" in said
    assert "instead of 4000" in said


def test_too_little_memory_is_refused_in_one_line_before_anything_is_loaded(small_bag, tmp_path, capsys):
    assert (
        main(["play", str(small_bag), "--out", str(tmp_path), "--set", "max_memory_mib=256", "--model", "no_such"]) == 1
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert "max_memory_mib is 256, but at least" in line and "MiB (process" in line
    assert not (tmp_path / "map.mcap").exists()
