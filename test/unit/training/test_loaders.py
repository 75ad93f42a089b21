# SPDX-License-Identifier: Apache-2.0
"""Who reads the samples changes nothing: not a thread, not processes, not reading only a part of a shard."""

import dataclasses

import numpy as np
import pytest
import torch

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.training.dataset import Sample, SampleSource, make_sample
from occupancy_nn_ros.training.loaders import read_ahead
from occupancy_nn_ros.training.shards import open_shard, read_shard


def assert_same(first, second):
    for name in Sample.__dataclass_fields__:
        a, b = getattr(first, name), getattr(second, name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, name


def test_processes_read_what_a_thread_reads_in_the_same_order(data):
    source = SampleSource(sorted(data.iterdir()), 3)
    numbers = [5, 2, 9, 2, 0, 7]
    expected = [source.sample(number) for number in numbers]
    for processes in (0, 2):
        with read_ahead(source, numbers, processes) as samples:
            got = list(samples)
        assert len(got) == len(numbers)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)


def test_what_a_process_cannot_read_stops_the_run(data):
    for path in data.iterdir():
        path.write_bytes(path.read_bytes()[:5000])
    source = SampleSource(sorted(data.iterdir()), 3)
    with read_ahead(source, range(9), 1) as samples, pytest.raises(TrainingError, match="cannot read shard"):
        next(samples)


@pytest.mark.parametrize("augment", [False, True])
def test_a_sample_of_an_opened_shard_is_that_of_a_read_one(data, augment):
    path = sorted(data.iterdir())[0]
    for frame in (1, 3):
        samples = [
            make_sample(load(path), frame, np.random.default_rng(frame), augment=augment)
            for load in (open_shard, read_shard)
        ]
        assert_same(*samples)


def test_a_sample_outlives_its_file(data):
    """What a sample holds is a copy: the file may go."""
    source = SampleSource(sorted(data.iterdir()), 3)
    sample = source.sample(1)
    expected = dataclasses.replace(sample, images=sample.images.clone(), points=sample.points.clone())
    for path in data.iterdir():
        path.unlink()
    assert_same(sample, expected)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("points_m", "points_m holds numbers"),
        ("labels", "labels name classes"),
        ("T_map_cam", "T_map_cam holds numbers"),
    ],
)
def test_a_frame_that_is_used_is_checked(data, write_shard, shard_arrays, name, words):
    arrays = shard_arrays(frames=2)
    arrays[name][1] = 99
    if name != "labels":
        arrays[name][1].flat[0] = np.nan
    path = write_shard(data / "x.safetensors", arrays)
    with pytest.raises(TrainingError, match=words):
        SampleSource([path], 0).sample(0)
