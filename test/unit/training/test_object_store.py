# SPDX-License-Identifier: Apache-2.0
"""Shards at a URL: the same as in a folder, brought once, and errors that name what cannot be used."""

import sys

import numpy as np
import pytest

from occupancy_nn_ros.errors import MissingDependencyError, TrainingError
from occupancy_nn_ros.training import object_store
from occupancy_nn_ros.training.dataset import SampleSource
from occupancy_nn_ros.training.object_store import ObjectStore, count_shards, is_url, local_copy
from occupancy_nn_ros.training.shards import read_shard, write_shard

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'occupancy-nn-ros[remote]'")


@pytest.fixture
def url(monkeypatch, tmp_path):
    monkeypatch.setenv("OCCUPANCY_NN_SHARDS", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    yield f"memory://bucket/{tmp_path.name}"
    memory.rm("/bucket", recursive=True) if memory.exists("/bucket") else None


@pytest.fixture
def shards(tmp_path, shard_arrays):
    """Three shards in a folder."""
    for n in range(3):
        write_shard(tmp_path / "made" / f"room_{n}.safetensors", shard_arrays(n), {})
    return sorted((tmp_path / "made").iterdir())


def brought(monkeypatch):
    """Names of the files that are copied from now on."""
    names, bring = [], ObjectStore.bring
    monkeypatch.setattr(ObjectStore, "bring", lambda self, name, path: names.append(name) or bring(self, name, path))
    return names


def test_what_is_a_url():
    assert is_url("s3://bucket/shards") and is_url("simplecache::gs://bucket/shards") and is_url("file:///data")
    assert not is_url("data/shards") and not is_url("/data/shards")


def test_what_is_sent_comes_back_as_it_was(url, shards, tmp_path):
    store = ObjectStore(url)
    assert store.sizes() == {}
    store.send(shards)
    assert store.sizes() == {path.name: path.stat().st_size for path in shards}
    assert count_shards(url) == count_shards(tmp_path / "made") == 3
    assert store.read(shards[0].name) == shards[0].read_bytes()
    store.remove([shards[0].name])
    assert set(store.sizes()) == {path.name for path in shards[1:]}


@pytest.mark.parametrize("kind", ["memory", "file", "simplecache"])
def test_training_draws_the_same_samples_from_a_url(url, shards, tmp_path, kind):
    place = {"memory": url, "file": f"file://{tmp_path}/far", "simplecache": f"simplecache::file://{tmp_path}/far"}[
        kind
    ]
    ObjectStore(place).send(shards)
    shares = []
    copy = local_copy(place, shares.append)
    assert shares == [1 / 3, 2 / 3, 1]
    near, far = (SampleSource(sorted(folder.iterdir()), 7).sample(5) for folder in (tmp_path / "made", copy))
    assert np.array_equal(near.images, far.images) and np.array_equal(near.points, far.points)


def test_a_second_start_brings_what_is_new_or_changed_and_removes_what_is_gone(url, shards, shard_arrays, monkeypatch):
    store, names = ObjectStore(url), brought(monkeypatch)
    store.send(shards[:2])
    folder = local_copy(url)
    assert names == ["room_0.safetensors", "room_1.safetensors"]
    names.clear()
    store.send(shards[2:])
    store.remove(["room_0.safetensors"])
    write_shard(shards[1], shard_arrays(8, frames=5), {})
    store.send(shards[1:2])
    assert local_copy(url) == folder
    assert names == ["room_1.safetensors", "room_2.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert len(read_shard(folder / "room_1.safetensors").images) == 5


def test_processes_of_one_machine_begin_at_different_shards(url, shards, monkeypatch):
    ObjectStore(url).send(shards)
    names = brought(monkeypatch)
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    local_copy(url)
    assert names == [f"room_{n}.safetensors" for n in (2, 0, 1)]


def test_a_copy_that_breaks_off_is_not_taken_for_a_shard(url, shards, monkeypatch):
    ObjectStore(url).send(shards)
    store = ObjectStore(url)

    def broken(remote, local):
        with open(local, "wb") as file:  # noqa: PTH123
            file.write(b"half")
        raise OSError("connection reset")

    monkeypatch.setattr(type(store._files), "get_file", staticmethod(broken))
    with pytest.raises(TrainingError, match=r"cannot read room_0.safetensors of memory://.*connection reset"):
        local_copy(url)
    (folder,) = object_store.cache_folder().iterdir()
    assert list(folder.iterdir()) == []


def test_errors_name_the_url_and_what_is_missing(url, monkeypatch, tmp_path):
    with pytest.raises(TrainingError, match=f"no training shards at {url}"):
        local_copy(url)
    with pytest.raises(TrainingError, match="cannot open nonsense://bucket: ValueError: Protocol not known"):
        ObjectStore("nonsense://bucket")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(TrainingError, match="cannot write to file://"):
        ObjectStore(f"file://{tmp_path}/file").send([tmp_path / "file"])
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingDependencyError, match=r"cannot open s3://bucket/shards: .*s3fs"):
        ObjectStore("s3://bucket/shards")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'occupancy-nn-ros\[remote\]'"):
        ObjectStore(url)
