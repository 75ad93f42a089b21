# SPDX-License-Identifier: Apache-2.0
"""What a run takes is planned, kept to, and said."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.network.checkpoint import find_model, load_checkpoint
from occupancy_nn_ros.runtime.memory import PAST_VIEW_BYTES, MemoryWatch, forget_peak, peak_mib, plan_memory


def settings(*overrides):
    return load_config([], ["network.threads=2", *overrides])


def test_without_a_limit_nothing_is_cut():
    config = settings("map.remember_mib=100000")
    plan = plan_memory(config, cameras=4, taken_mib=350)
    assert plan.config == config and plan.left_out == ()
    assert plan.needed_mib["remembered places"] == 100000


def test_what_the_demo_was_measured_to_take_is_within_what_is_planned_and_not_far_below():
    """753 MiB with four cameras, two threads, voxels of 0.2 m, 1072 with 0.1 m, of which the process had 365 before."""
    for edge, measured in ((0.2, 753), (0.1, 1072)):
        needed = plan_memory(settings(f"voxel_size_m={edge}"), cameras=4, taken_mib=365).needed_mib
        assert measured < sum(needed.values()) - needed["frames"] < 1.35 * measured


def test_two_gibibytes_hold_the_usual_settings_whole():
    assert plan_memory(settings("max_memory_mib=2048"), cameras=4, taken_mib=400).left_out == ()


def test_what_can_be_missed_is_cut_and_said():
    config = settings("max_memory_mib=1200", "map.remember_mib=4000")
    plan = plan_memory(config, cameras=4, taken_mib=400)
    assert plan.config.sync.queue_mib == 32
    assert 0 < plan.config.map.remember_mib < 4000
    assert plan.left_out == (
        "sync.queue_mib is 32 instead of 512",
        f"map.remember_mib is {plan.config.map.remember_mib} instead of 4000",
    )
    assert sum(plan.needed_mib.values()) == 1200


def test_what_cannot_fit_is_refused_with_the_figures():
    with pytest.raises(
        ConfigError, match=r"max_memory_mib is 600, but at least \d+ MiB \(process 400, map \d+, .*needed"
    ):
        plan_memory(settings("max_memory_mib=600"), cameras=4, taken_mib=400)
    with pytest.raises(ConfigError, match="or choose a smaller"):
        plan_memory(
            settings("max_memory_mib=2048", "source=depth", "map.size_xy_m=200", "voxel_size_m=0.05"), taken_mib=400
        )


@given(
    st.integers(1, 5000),
    st.integers(0, 5000),
    st.integers(32, 2000),
    st.integers(0, 8),
    st.sampled_from([0.1, 0.2, 0.5]),
)
def test_a_plan_never_exceeds_its_limit(limit, places, queue, cameras, edge):
    config = settings(
        f"max_memory_mib={limit}", f"map.remember_mib={places}", f"sync.queue_mib={queue}", f"voxel_size_m={edge}"
    )
    try:
        plan = plan_memory(config, cameras, taken_mib=300)
    except ConfigError:
        return
    assert sum(plan.needed_mib.values()) <= limit
    assert 32 <= plan.config.sync.queue_mib <= queue
    assert 0 <= plan.config.map.remember_mib <= places
    kept = dataclasses.replace(plan.config, sync=config.sync, map=config.map)
    assert kept == config
    assert plan_memory(plan.config, cameras, taken_mib=300).config == plan.config  # planned again, nothing more is cut


def test_the_watch_has_memory_given_back_once_over_the_limit():
    peaks, asked = [90, 100, 130], []
    watch = MemoryWatch(100, lambda: peaks.pop(0))

    def give_back():
        asked.append(True)
        return "the attic was cleared"

    assert watch.look(give_back) == watch.look(give_back) == "" and not asked
    assert watch.look(give_back) == "130 MiB of memory were taken, max_memory_mib is 100: the attic was cleared"
    assert watch.peak_mib == 130


def test_the_peak_is_that_of_this_process_since_it_was_forgotten():
    forget_peak()
    before = peak_mib()
    block = np.ones(80 << 20, np.uint8)
    with_it = peak_mib()
    del block
    assert 70 <= with_it - before <= 120
    assert peak_mib() >= with_it - 2  # the kernel counts in batches


def test_a_past_view_of_the_shipped_model_holds_what_is_planned_for_it():
    network = load_checkpoint(find_model("nano")).network.eval()
    with torch.inference_mode():
        pixels = torch.zeros(1, 3, 128, 160)
        (kept,) = network.matchable(pixels, network.encode(pixels))
    held = sum(part.untyped_storage().nbytes() for part in kept) / pixels[0, 0].numel()
    assert 0.9 * PAST_VIEW_BYTES < held <= PAST_VIEW_BYTES
