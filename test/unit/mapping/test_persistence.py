# SPDX-License-Identifier: Apache-2.0
"""Map files, exports and the store of places that left the window."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.errors import MapFileError
from occupancy_nn_ros.mapping import atomic_file
from occupancy_nn_ros.mapping.exports import save_bt, save_ply
from occupancy_nn_ros.mapping.map_file import load_map, save_map
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.values import LatticeWindow, MapView, Prediction, VoxelState

SHAPE = (10, 8, 6)
SECOND = 1_000_000_000


def filled(seed=0, origin=(3, -11, 4), **settings_):
    rng = np.random.default_rng(seed)
    grid = RollingMap(0.5, SHAPE, MapConfig(**settings_), num_classes=3)
    grid.move_origin(origin)
    logit = torch.from_numpy(rng.normal(0, 2, SHAPE).astype(np.float32))
    weight = torch.from_numpy((rng.random(SHAPE) < 0.6).astype(np.float32))
    classes = torch.from_numpy(rng.normal(0, 2, (3, *SHAPE)).astype(np.float32))
    grid.integrate(Prediction(grid.window, logit, weight, classes), 0)
    return grid


def same_view(a, b):
    one, two = a.view(0, "map", np.eye(4)), b.view(0, "map", np.eye(4))
    assert one.window == two.window
    for name in ("state", "probability", "classes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


def test_a_saved_map_comes_back_wherever_the_robot_is(tmp_path):
    path, grid = tmp_path / "deep" / "map.safetensors", filled()
    save_map(grid, path, "odom")
    other = RollingMap(0.5, SHAPE, MapConfig(), num_classes=3)
    other.move_origin((100, 100, -7))
    assert load_map(other, path) == "odom"
    same_view(grid, other)
    assert [p.name for p in path.parent.iterdir()] == ["map.safetensors"]


def test_a_loaded_map_counts_as_seen_now(tmp_path):
    path = tmp_path / "map"
    save_map(filled(), path, "map")
    grid = filled(1, forget_model="linear", forget_after_s=10.0)
    grid.integrate(Prediction(grid.window, torch.ones(SHAPE), torch.ones(SHAPE)), 500 * SECOND)
    grid.forget(500 * SECOND)
    load_map(grid, path)
    known = int((grid.seen_ms >= 0).sum())
    grid.forget(int(500.01 * SECOND))
    assert 0 < known == int((grid.seen_ms >= 0).sum())
    grid.forget(520 * SECOND)
    assert int((grid.seen_ms >= 0).sum()) == 0


def test_a_map_loaded_before_any_data_survives_the_first_move_and_frame(tmp_path):
    save_map(filled(), tmp_path / "map", "map")
    grid = RollingMap(0.5, SHAPE, MapConfig(), num_classes=3)
    load_map(grid, tmp_path / "map")
    before = int((grid.seen_ms >= 0).sum())
    grid.move_origin((4, -11, 5))
    after = int((grid.seen_ms >= 0).sum())
    assert 0.6 * before < after < before


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 100, 1000, -1])
def test_truncated_files_are_refused_and_the_map_stays(tmp_path, cut):
    path = tmp_path / "map"
    save_map(filled(), path, "map")
    path.write_bytes(path.read_bytes()[:cut])
    assert_refused(path)


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_foreign_bytes_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("foreign") / "map"
    path.write_bytes(data)
    assert_refused(path)


@pytest.mark.parametrize("place", np.linspace(0, 1, 25))
def test_a_flipped_bit_anywhere_is_found(tmp_path, place):
    path = tmp_path / "map"
    save_map(filled(), path, "map")
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 4
    path.write_bytes(data)
    assert_refused(path)


def assert_refused(path):
    grid, same = filled(5), filled(5)
    with pytest.raises(MapFileError):
        load_map(grid, path)
    same_view(grid, same)


def rewritten(path, change):
    with safe_open(str(path), framework="pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, str(path), metadata=header)


@pytest.mark.parametrize(("key", "value"), [
    ("version", "1"), ("format", "other"), ("window", "[]"), ("window", "nonsense"), ("checksum", "0"),
    ("frame_id", "x"),
    ("window", json.dumps([0.5, [0, 0, 0], [10**9, 10**9, 10**9]])), ("window", json.dumps([0.4, [0, 0, 0], SHAPE])),
    ("window", json.dumps([float("nan"), [0, 0, 0], SHAPE])), ("window", json.dumps([0.5, [1e300, 0, 0], SHAPE])),
])  # fmt: skip
def test_foreign_headers_are_refused(tmp_path, key, value):
    path = tmp_path / "map"
    save_map(filled(), path, "map")
    rewritten(path, lambda header, tensors: header.update({key: value}))
    assert_refused(path)


@pytest.mark.parametrize("change", [
    lambda header, tensors: tensors.pop("known"),
    lambda header, tensors: tensors.update(extra=torch.zeros(3)),
    lambda header, tensors: tensors.update(log_odds=torch.zeros((3, 3, 3))),
    lambda header, tensors: tensors.update(log_odds=tensors["log_odds"].double()),
    lambda header, tensors: header.pop("checksum"),
])  # fmt: skip
def test_foreign_tensors_are_refused(tmp_path, change):
    path = tmp_path / "map"
    save_map(filled(), path, "map")
    rewritten(path, change)
    assert_refused(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    assert_refused(tmp_path / "nowhere")
    assert_refused(tmp_path)
    with pytest.raises(MapFileError, match="cannot write"):
        save_map(filled(), tmp_path, "map")


@pytest.mark.parametrize("write", [
    lambda grid, path: save_map(grid, path, "map"),
    lambda grid, path: save_bt(grid.view(0, "map", np.eye(4)), path),
    lambda grid, path: save_ply(grid.view(0, "map", np.eye(4)), path),
])  # fmt: skip
def test_a_disk_that_fills_leaves_the_old_file(tmp_path, monkeypatch, write):
    path = tmp_path / "map"
    write(filled(1), path)
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic_file.os, "fsync", full)
    with pytest.raises(MapFileError, match="No space left"):
        write(filled(2), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["map"]


def view_of(state, origin=(-5, -7, -2), edge=0.2):
    window = LatticeWindow(edge, origin, state.shape)
    probability = np.where(state == 1, 0.9, 0.1).astype(np.float32)
    return MapView(0, "map", window, np.eye(4), state.astype(np.int8), probability, (state == 1).astype(np.uint8) * 3)


def read_bt(path):
    """Leaves of an OctoMap binary tree as written: {(depth, i, j, k): occupied}, and the node count of the header."""
    header, _, data = path.read_bytes().partition(b"data\n")
    words, leaves, nodes = iter(np.frombuffer(data, "<u2")), {}, 1

    def read(depth, corner):
        nonlocal nodes
        word = int(next(words))
        inner = []
        for child in range(8):
            kind = word >> (2 * child) & 3
            place = tuple(2 * c + (child >> axis & 1) for axis, c in enumerate(corner))
            nodes += kind > 0
            if kind == 3:
                inner.append(place)
            elif kind:
                leaves[(depth + 1, *place)] = kind == 2
        for place in inner:
            read(depth + 1, place)

    read(0, (0, 0, 0))
    assert next(words, None) is None
    assert f"size {nodes}\n".encode() in header
    return leaves


@pytest.mark.parametrize(("known", "occupied"), [(0.05, 0.5), (0.9, 0.1), (2.0, 2.0), (2.0, -1.0)])
def test_an_octomap_holds_the_same_voxels(tmp_path, known, occupied):
    rng = np.random.default_rng(2)
    shape = (16, 24, 9)
    state = np.where(rng.random(shape) < known, rng.random(shape) < occupied, -1)
    save_bt(view_of(state), tmp_path / "map.bt")
    leaves, found = read_bt(tmp_path / "map.bt"), np.full(shape, -1)
    for (depth, *place), is_occupied in leaves.items():
        size = 1 << (16 - depth)
        low = np.array(place) * size - (1 << 15) - (-5, -7, -2)
        found[tuple(slice(int(c), int(c) + size) for c in low)] = is_occupied
    np.testing.assert_array_equal(found, state)
    if known > 1:
        assert len(leaves) < 0.8 * state.size


def test_octomap_itself_reads_the_export(tmp_path):
    octomap = pytest.importorskip("pyoctomap")
    rng = np.random.default_rng(3)
    state = np.where(rng.random((12, 9, 7)) < 0.6, rng.random((12, 9, 7)) < 0.4, -1)
    view = view_of(state)
    save_bt(view, tmp_path / "map.bt")
    tree = octomap.OcTree(0.5)
    assert tree.readBinary(str(tmp_path / "map.bt"))
    assert tree.getResolution() == pytest.approx(0.2)
    for cell, center in zip(np.ndindex(state.shape), view.window.centers_m().reshape(-1, 3).astype(float), strict=True):
        node = tree.search(center)
        try:
            got = int(tree.isNodeOccupied(node))
        except Exception:
            got = -1
        assert got == state[cell]


def test_an_octomap_has_limits(tmp_path):
    with pytest.raises(MapFileError, match="32768 voxels"):
        save_bt(view_of(np.zeros((4, 4, 4)), origin=(40000, 0, 0)), tmp_path / "map.bt")


def test_a_ply_holds_the_occupied_centers(tmp_path):
    state = np.full((4, 3, 2), -1)
    state[1, 2, 0], state[3, 0, 1], state[0, 0, 0] = 1, 1, 0
    save_ply(view_of(state), tmp_path / "map.ply")
    header, _, data = (tmp_path / "map.ply").read_bytes().partition(b"end_header\n")
    assert b"element vertex 2\n" in header
    points = np.frombuffer(data, [("xyz", "<f4", 3), ("probability", "<f4"), ("class_id", "u1")])
    np.testing.assert_allclose(points["xyz"], [[-0.7, -0.9, -0.3], [-0.3, -1.3, -0.1]], atol=1e-6)
    np.testing.assert_allclose(points["probability"], 0.9)
    assert points["class_id"].tolist() == [3, 3]


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_places_come_back_after_a_walk(seed):
    rng = np.random.default_rng(seed)
    grid = filled(seed % 1000, remember_mib=4)
    before, origin = grid.window_tensors(), grid.window.origin
    classes = grid.view(0, "map", np.eye(4)).classes
    for _ in range(6):
        grid.move_origin(tuple(int(v) for v in np.add(origin, rng.integers(-40, 41, 3))))
    grid.move_origin(origin)
    after = grid.window_tensors()
    assert torch.equal(after[1] >= 0, before[1] >= 0)
    assert float((after[0] - before[0]).abs().max()) <= 4.0 / 127 / 2 + 1e-5
    view = grid.view(0, "map", np.eye(4))
    both = (view.state == VoxelState.OCCUPIED) & (classes > 0)
    np.testing.assert_array_equal(view.classes[both], classes[both])
    assert both.sum() > 20


@pytest.mark.parametrize("is_loaded", [False, True])
def test_clearing_and_loading_forget_places_that_left_the_window(tmp_path, is_loaded):
    grid = filled(remember_mib=4)
    origin = grid.window.origin
    grid.move_origin((origin[0] + 40, origin[1], origin[2]))
    assert len(grid.store) > 0
    if is_loaded:
        save_map(filled(7, (500, 0, 0)), tmp_path / "map", "odom")
        load_map(grid, tmp_path / "map")
    else:
        grid.clear()
    grid.move_origin(origin)
    assert (grid.view(0, "map", np.eye(4)).state == VoxelState.UNKNOWN).all()


def test_the_store_forgets_the_oldest_place_when_it_is_full():
    grid = filled(remember_mib=1)
    grid.store.limit_bytes = 3000
    ones = torch.ones(SHAPE)
    for n in range(60):
        grid.move_origin((12 * n, 0, 0))
        grid.integrate(Prediction(grid.window, ones, ones), n * SECOND)
    assert 0 < grid.store.size_bytes <= 3000
    assert grid.store.dropped > 0
    grid.move_origin((12 * 57, 0, 0))
    assert (grid.view(0, "map", np.eye(4)).state != VoxelState.UNKNOWN).mean() > 0.7
    grid.move_origin((0, 0, 0))
    assert (grid.view(0, "map", np.eye(4)).state == VoxelState.UNKNOWN).all()


def test_the_store_gives_up_half_of_what_it_keeps_on_request_and_grows_no_more():
    grid, ones = filled(remember_mib=4), torch.ones(SHAPE)
    for n in range(10):
        grid.move_origin((12 * n, 0, 0))
        grid.integrate(Prediction(grid.window, ones, ones), n * SECOND)
    before, kept = grid.store.size_bytes, len(grid.store)
    dropped = grid.store.halve()
    assert 0 < dropped < kept and len(grid.store) == kept - dropped
    assert grid.store.size_bytes <= grid.store.limit_bytes == before // 2
    assert grid.store.halve() > 0
