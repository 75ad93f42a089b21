# SPDX-License-Identifier: Apache-2.0
"""What numpy alone reads is what the shards hold, and the page's reader reads it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_pool import FakePool

from occupancy_nn_ros.errors import TrainingError
from occupancy_nn_ros.training.numpy_dataset import ARRAYS, LABELS, write_numpy_dataset
from occupancy_nn_ros.training.shards import Shard, write_shard

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, shard_arrays):
    """A simulated drive and a recorded one, which tells who sees what and was moved."""
    first, second = shard_arrays(0), shard_arrays(1, frames=3)
    second["visible"] = np.ones(second["labels"].shape, np.uint8)
    write_shard(tmp_path / "data" / "indoor_00000.safetensors", first, {"world": "indoor", "seed": "0"})
    origin = np.array([5000.0, -3000.0, 0.0])
    write_shard(tmp_path / "data" / "walk.safetensors", second, {"bag": "walk.mcap", "origin_m": str(origin)})
    assert write_numpy_dataset(tmp_path / "data", FakePool()) == {}
    return tmp_path / "data", [first, second]


def index_of(folder):
    return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))


def test_arrays_are_those_of_the_shards_and_as_described(folder):
    folder, expected = folder
    index = index_of(folder)
    assert index["counts"] == {"drives": 2, "frames": 7, "pictures": 21, "points": 7 * 256}
    assert index["arrays"].keys() == set(Shard.__dataclass_fields__) == ARRAYS.keys()
    assert [drive["source"] for drive in index["drives"]] == [{"seed": "0", "world": "indoor"}, {"bag": "walk.mcap"}]
    assert [drive["origin_m"] for drive in index["drives"]] == [[0, 0, 0], [5000, -3000, 0]]
    for drive, arrays in zip(index["drives"], expected, strict=True):
        sizes = {**drive, "height/4": drive["height"] // 4, "width/4": drive["width"] // 4}
        with np.load(folder / drive["file"], allow_pickle=False) as file:
            assert set(file.files) == set(arrays)
            for name in file.files:
                spec = index["arrays"][name]
                assert file[name].dtype == spec["dtype"]
                assert file[name].shape == tuple(int(sizes.get(size, 0) or size) for size in spec["shape"])
                np.testing.assert_array_equal(file[name], arrays[name])
            assert {str(label) for label in np.unique(file["labels"])} <= index["labels"].keys() == LABELS.keys()


def test_the_reader_of_the_page_needs_numpy_alone(folder):
    (code,) = re.findall(r"```python\n(import json\n.*?)```", PAGE, re.S)
    assert len(code.splitlines()) <= 12
    check = f"{code}\nimport sys\nassert 'torch' not in sys.modules and 'safetensors' not in sys.modules\nprint(seen)"
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=folder[0].parent, env=bare, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["7"]


def test_the_page_says_what_each_array_holds():
    for name, spec in ARRAYS.items():
        assert f"| `{name}` | {spec.dtype} | {', '.join(spec.shape)} | {spec.unit} | {spec.meaning} |" in PAGE


def test_a_second_start_converts_what_is_new_and_forgets_what_is_gone(folder, shard_arrays):
    folder, _ = folder
    kept = (folder / "numpy" / "walk.npz").stat().st_mtime_ns
    (folder / "indoor_00000.safetensors").unlink()
    write_shard(folder / "new.safetensors", shard_arrays(2), {})
    pool = FakePool()
    assert write_numpy_dataset(folder, pool) == {}
    assert sum(pool.begun.values()) == 1
    assert (folder / "numpy" / "walk.npz").stat().st_mtime_ns == kept
    assert [drive["file"] for drive in index_of(folder)["drives"]] == ["numpy/new.npz", "numpy/walk.npz"]
    assert sorted(path.name for path in (folder / "numpy").iterdir()) == ["new.npz", "walk.npz"]


def test_a_broken_shard_is_named_and_left_out(folder):
    folder, _ = folder
    whole = (folder / "walk.safetensors").read_bytes()
    (folder / "walk.safetensors").write_bytes(whole[: len(whole) // 2])
    failed = write_numpy_dataset(folder, FakePool())
    assert list(failed) == ["walk"] and "cannot read shard" in failed["walk"]
    assert index_of(folder)["counts"]["drives"] == 1
    (folder / "dataset.json").unlink()
    (folder / "dataset.json").mkdir()
    with pytest.raises(TrainingError, match="cannot write"):
        write_numpy_dataset(folder, FakePool())
