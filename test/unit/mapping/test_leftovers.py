# SPDX-License-Identifier: Apache-2.0
"""Saves that were killed, and disks that take no more: the last good file stays, and nothing else."""

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.errors import BagError, CheckpointError, MapFileError, TrainingError
from occupancy_nn_ros.mapping.atomic_file import remove_leftovers, replace_file
from occupancy_nn_ros.messages.names import IMAGE
from occupancy_nn_ros.messages.sensors import encode_image
from occupancy_nn_ros.network.checkpoint import Checkpoint, save_checkpoint
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork
from occupancy_nn_ros.training.shards import write_shard

KILLED = """
import os, sys
from pathlib import Path
from occupancy_nn_ros.mapping.atomic_file import replace_file
def parts():
    yield bytes(1000)
    print("writing", flush=True)
    sys.stdin.read()
replace_file(Path(sys.argv[1]), parts())
"""


@contextmanager
def small_files(most_bytes):
    """While this lasts no file can grow beyond so many bytes: the kernel refuses, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_the_next_save_removes_what_a_killed_one_left(tmp_path):
    path = tmp_path / "map.safetensors"
    replace_file(path, [b"good"])
    root = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert process.stdout.readline() == b"writing\n"
    left = f"map.safetensors.{process.pid}.partial"
    assert remove_leftovers(tmp_path) == []  # it is still being written
    process.kill()
    process.communicate()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["map.safetensors", left]
    assert path.read_bytes() == b"good"
    replace_file(path, [b"better"])
    assert [file.name for file in tmp_path.iterdir()] == ["map.safetensors"]
    assert path.read_bytes() == b"better"


def test_only_leftovers_are_removed(tmp_path):
    for name in ("map.partial", "a.99999999.partial", "b.7x.partial", "notes.txt"):
        (tmp_path / name).write_text("x")
    assert remove_leftovers(tmp_path) == ["a.99999999.partial"]
    assert remove_leftovers(tmp_path / "missing") == []


def test_a_folder_that_vanished_is_made_again(tmp_path):
    replace_file(tmp_path / "maps" / "here" / "map", [b"1"])
    assert (tmp_path / "maps" / "here" / "map").read_bytes() == b"1"


def test_a_full_disk_costs_no_map(tmp_path):
    path = tmp_path / "map"
    replace_file(path, [b"good"])
    with small_files(4096), pytest.raises(MapFileError, match=f"cannot write {path}: .*File too large"):
        replace_file(path, [bytes(3000)] * 10)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("map", b"good")]


def test_a_full_disk_costs_no_model_and_no_shard(tmp_path):
    tiny = ModelConfig(
        canvas_pixels=8192, widths=(8, 8, 16, 16), feature_channels=8, match_groups=2, match_width=4, depth_bins=16,
        volume_shape=(16, 16, 6), volume_cell_m=0.5, volume_features=4, volume_channels=4, volume_width=8, decoder_width=8, range_m=4.0,
    )  # fmt: skip
    model, shard = tmp_path / "m.safetensors", tmp_path / "s.safetensors"
    network = OccupancyNetwork(tiny)
    save_checkpoint(Checkpoint(network), model)
    write_shard(shard, {"a": np.zeros(3)}, {})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with small_files(4096):
        with pytest.raises(CheckpointError, match=f"cannot write model {model}"):
            save_checkpoint(Checkpoint(network), model)
        with pytest.raises(TrainingError, match=f"cannot write shard {shard}"):
            write_shard(shard, {"a": np.zeros(5000)}, {})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_full_disk_costs_no_bag(tmp_path, rng):
    def write(count):
        with BagWriter(tmp_path / "map.mcap", overwrite=True) as bag:
            for n in range(count):
                noise = rng.integers(0, 255, (200, 200, 3), dtype=np.uint8)
                bag.write("/cam", IMAGE, n, encode_image(n, "cam", noise))

    write(1)
    before = (tmp_path / "map.mcap").read_bytes()
    with small_files(len(before) + 100_000), pytest.raises(BagError, match=r"map\.mcap"):
        write(40)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("map.mcap", before)]


def test_a_full_disk_costs_no_state_of_training(tmp_path):
    from occupancy_nn_ros.training import loop

    (tmp_path / "state.pt").write_bytes(b"good")

    class Run:
        step, warmed_from, shards, note = 3, 0, (), {}
        network = average = optimizer = torch.nn.Linear(200, 200)

    with small_files(4096), pytest.raises(TrainingError, match=r"state\.pt: .*the state before it stays"):
        loop._save(tmp_path, Run(), None)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("state.pt", b"good")]
