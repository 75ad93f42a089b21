# SPDX-License-Identifier: Apache-2.0
"""What shards of recordings may hold that those of simulated worlds do not."""

import numpy as np
import pytest

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.training.dataset import make_sample
from occupancy_nn_ros.training.shards import OCCUPIED, read_shard, write_shard


def recorded(arrays):
    """The room's arrays as a recording would give them: some depths unknown, no classes, who sees what."""
    arrays["depth_m"][:, :, :2] = np.nan
    arrays["labels"][arrays["labels"] > 0] = OCCUPIED
    arrays["visible"] = (np.arange(arrays["labels"].size) % 8).astype(np.uint8).reshape(arrays["labels"].shape)
    return arrays


def test_shards_of_recordings_are_read_as_written(tmp_path, shard_arrays):
    arrays = recorded(shard_arrays())
    write_shard(tmp_path / "x.safetensors", arrays, {"bag": "b"})
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    shard = read_shard(tmp_path / "x.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(shard, name), array)


def test_older_shards_do_not_tell_who_sees_what(tmp_path, write_shard):
    assert read_shard(write_shard(tmp_path / "x.safetensors")).visible is None


@pytest.mark.parametrize("seed", range(6))
def test_unknown_depth_stays_unknown_under_augmentation(tmp_path, shard_arrays, seed):
    write_shard(tmp_path / "x.safetensors", recorded(shard_arrays()), {})
    sample = make_sample(read_shard(tmp_path / "x.safetensors"), 3, np.random.default_rng(seed), augment=True)
    unknown = sample.depth_m.isnan()
    assert unknown[:, :2].all() and not unknown[:, 2:].any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a["depth_m"].__setitem__((0, 0, 3, 3), np.inf), "depth_m holds numbers that are not finite"),
        (lambda a: a["points_m"].__setitem__((0, 0, 0), np.nan), "points_m holds numbers that are not finite"),
        (lambda a: a["labels"].__setitem__((0, 0), OCCUPIED - 1), "labels name classes beyond 6"),
        (lambda a: a.update(visible=a["visible"][:, :5]), r"visible is \(4, 5\), expected \(4, 256\)"),
    ],
)
def test_what_no_recording_can_give_is_refused(tmp_path, shard_arrays, change, words):
    arrays = recorded(shard_arrays())
    change(arrays)
    write_shard(tmp_path / "x.safetensors", {k: np.ascontiguousarray(v) for k, v in arrays.items()}, {})
    with pytest.raises(TrainingError, match=words):
        read_shard(tmp_path / "x.safetensors")
