# SPDX-License-Identifier: Apache-2.0
"""A keyframe on a GPU, on a stand-in for one, from a message's pixels to the bytes of topics: one copy there, one back."""

from copy import deepcopy

import pytest
import torch
from device_drive import DEPTHS, MAPS, keyframe, session_on
from stand_in_device import no_host_waits, stand_in_device

from occupancy_nn_ros.mapping.surface_points import surface_points
from occupancy_nn_ros.runtime import device_source
from occupancy_nn_ros.runtime.map_source import MapSource
from occupancy_nn_ros.runtime.outputs import OUTPUTS, OutputEncoder

VARIANTS = {
    "as it comes": (),
    "ground and steps": ("grid.reference=ground", "grid.max_step_down_m=0.2", "grid.max_step_up_m=0.2", "outputs.color_by=height"),
    "costs": ("grid.class_costs=person=20, object=50", "grid.class_margins_m=object=0.6"),
    "a body, and forgetting": ("robot.body=0.2 -0.5 -0.5 1.5 0.5 1.0", "map.forget_model=linear", "map.forget_after_s=9"),
}  # fmt: skip


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_pixels_go_up_and_bytes_come_down_once(monkeypatch, tiny_model, settings):
    """All topics of a keyframe are the bytes that the host makes of a full copy of the same map."""
    with stand_in_device(monkeypatch.setattr):
        session = session_on("auto", tiny_model, settings)
        session.warm_up()
        for n in range(3):
            session.process(keyframe(n), "odom", MAPS)
        with no_host_waits() as copies:
            messages = session.process(keyframe(3), "odom", MAPS | DEPTHS)
        assert copies == {"uploads": 1, "downloads": 1, "waits": 2}  # and the clock's last moment, which has passed
        assert not session.dropped
        source = MapSource(session.view(), session.config)
        expected = OutputEncoder(session.config).encode([topic for topic in OUTPUTS if topic.name in MAPS], source)
    assert {message.name for message in messages} == MAPS | DEPTHS
    made = {message.name: message.cdr for message in messages}
    for message in expected:
        assert made[message.name] == message.cdr, message.name
    assert len(made["occupied_voxels"]) > 2000 and len(made["markers"]) > 2000
    assert list(session.latency.summary())[:2] == ["decode", "integrate"]


def test_what_moves_is_what_the_host_makes_of_the_same_looks(monkeypatch, tiny_model):
    with stand_in_device(monkeypatch.setattr):
        session = session_on("auto", tiny_model)
        for n in range(3):
            session.process(keyframe(n), "odom", {"moving"})
        tracker = deepcopy(session._shown.tracker)
        (message,) = session.process(keyframe(3), "odom", {"moving"})
        source = MapSource(session.view(), session.config)
        source.tracker, source.looks = tracker, session.pipeline.looks
        (expected,) = OutputEncoder(session.config).encode([message.topic], source)
        assert message.cdr == expected.cdr
        assert len(surface_points(session.pipeline.looks, 8.0)) > 100


def test_with_a_lidar_its_points_go_up_too(monkeypatch, tiny_model):
    with stand_in_device(monkeypatch.setattr):
        session = session_on("auto", tiny_model)
        for n in range(2):
            session.process(keyframe(n, lidar=True), "odom", MAPS)
        with no_host_waits() as copies:
            session.process(keyframe(3, lidar=True), "odom", {"occupancy_grid"})
    assert copies == {"uploads": 2, "downloads": 1, "waits": 2}


def test_grids_are_all_that_comes_down_where_nobody_wants_voxels(monkeypatch, tiny_model):
    sizes = []
    brought = device_source.download
    monkeypatch.setattr(device_source, "download", lambda tensors: sizes.append(dict(tensors)) or brought(tensors))
    with stand_in_device(monkeypatch.setattr):
        session = session_on("auto", tiny_model)
        session.process(keyframe(0), "odom", {"occupancy_grid", "distance_field", "scan"})
        session.process(keyframe(1), "odom", set())
    (tensors,) = sizes
    cells = 40 * 40
    assert {name: tensor.nbytes for name, tensor in tensors.items()} == {
        "left_out": 8, "slice_2d": cells, "distances_m": 4 * cells,
    }  # fmt: skip


def test_lists_that_were_too_short_are_brought_again(monkeypatch, tiny_model):
    monkeypatch.setattr(device_source, "FEWEST_VOXELS", 16)
    with stand_in_device(monkeypatch.setattr):
        session = session_on("auto", tiny_model)
        counts = []
        for n in range(3):
            with no_host_waits() if n else torch.no_grad() as copies:
                messages = session.process(keyframe(n), "odom", {"occupied_voxels", "markers"})
            counts.append(copies and copies["downloads"])
        encoder = OutputEncoder(session.config)
        expected = encoder.encode([message.topic for message in messages], MapSource(session.view(), session.config))
    assert [message.cdr for message in messages] == [message.cdr for message in expected]
    assert counts[-1] == 1


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_what_the_network_did_not_know_is_said(monkeypatch, tiny_model, name):
    with stand_in_device(monkeypatch.setattr):
        session = session_on(name, tiny_model, ["network.coarse_m=0"])
        session.pipeline.predictor.network.decoder.layers[-1].bias.data[0] = torch.nan
        session.process(keyframe(0), "odom", {"occupancy_grid"})
    (reason,) = session.dropped
    assert reason == "predicted voxel that is not finite" and session.dropped[reason] > 1000
    assert "NaN or infinity" in session.problems[reason]
