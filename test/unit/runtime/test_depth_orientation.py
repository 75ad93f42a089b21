# SPDX-License-Identifier: Apache-2.0
"""Depth images that are mirrored or turned over, beside a camera_info that is not."""

from dataclasses import replace

import numpy as np
import pytest
from box_room import at, camera_at, depth_image, sweep

from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.runtime.depth_comparison import compare
from occupancy_nn_ros.runtime.depth_orientation import OrientationChecks, likely_flips
from occupancy_nn_ros.runtime.sight_lines import FLIPS, CloudSight, DepthSight

WAYS = {
    flip: (slice(None, None, -1 if i in (2, 3) else 1), slice(None, None, -1 if i in (1, 3) else 1))
    for i, flip in enumerate(FLIPS)
}


def look(flip, noise=None, *where, **more):
    depth = depth_image(camera_at(*where, **more))
    image = depth.depth_m if noise is None else depth.depth_m * (1 + 0.02 * noise.normal(size=depth.depth_m.shape))
    return replace(depth, depth_m=image[WAYS[flip]].astype(np.float32))


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("noisy", [False, True])
def test_a_turn_tells_left_from_right(flip, noisy):
    """A turn about the vertical does not tell above from below."""
    noise = np.random.default_rng(1) if noisy else None
    poses = [(0.2 * n - 1, -0.4, 0.6, 12.0 * n - 20) for n in range(5)]
    checks, refused = OrientationChecks(), []
    for pose in poses:
        try:
            checks.check(look(flip, noise, *pose))
        except ImplausibleError as error:
            refused.append((error.reason, error.spoils_map, str(error)))
    if flip in ("as it is", "flipped upside down"):
        assert refused == []
    else:
        assert [spoils for _, spoils, _ in refused] == [True, False]
        assert refused[0][0] == "depth is mirrored or turned over" and flip in refused[0][2]


@pytest.mark.parametrize("flip", FLIPS)
def test_a_nod_tells_above_from_below(flip):
    likely = likely_flips(look(flip, None, 0, 0.3, 0.9, 10, 5), look(flip, None, 0, 0.3, 0.9, 10, 20))
    upright = {"as it is", "mirrored left to right"}
    assert {*likely} == (upright if flip in upright else {*FLIPS} - upright)


def test_straight_ahead_tells_nothing():
    assert (
        likely_flips(look("mirrored left to right", None, 0, 0, 0.6), look("mirrored left to right", None, 0.5, 0, 0.6))
        == []
    )


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("tolerance", [0.08, 0.15])
def test_another_sensor_tells_which_way_it_lies(flip, tolerance):
    judge = CloudSight(sweep(at(0, 0, 0.9, yaw=20)))
    verdict = compare(DepthSight(look(flip, None, 0.2, 0, 0.5, 20, 10)), judge, tolerance)
    assert verdict is not None
    assert verdict.kind == ("metres" if flip == "as it is" else flip)
