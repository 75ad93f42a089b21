# SPDX-License-Identifier: Apache-2.0
"""Eight numbers at once say what numpy says of each."""

import numpy as np
import pytest

from occupancy_nn_ros.compute.compiled import HAVE_KERNELS, kernel
from occupancy_nn_ros.compute.lanes import (
    LANES,
    halves_added,
    larger,
    load,
    minus,
    plus,
    spread,
    store,
    times,
    times_plus,
    total,
)

pytestmark = pytest.mark.skipif(not HAVE_KERNELS, reason="numba is not installed")


@kernel
def each_operation(a, b, number, out):
    """Into successive vectors of ``out``; returns the sum of the lanes of ``a``."""
    x, y = load(a, np.uint64(1)), load(b, np.uint64(0))
    store(out, np.uint64(0), plus(x, y))
    store(out, np.uint64(8), minus(x, y))
    store(out, np.uint64(16), times(x, y))
    store(out, np.uint64(24), times_plus(x, y, spread(number)))
    store(out, np.uint64(32), larger(x, y))
    store(out, np.uint64(40), halves_added(x))
    return total(x)


def test_operations_lane_by_lane():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(LANES + 1).astype(np.float32), rng.standard_normal(LANES).astype(np.float32)
    out = np.zeros(6 * LANES + 1, np.float32)
    summed = each_operation(a, b, np.float32(0.5), out)
    x = a[1:]
    expected = [x + b, x - b, x * b, x * b + 0.5, np.maximum(x, b), x + np.roll(x, 4)]
    np.testing.assert_allclose(out[:-1].reshape(6, LANES), expected, rtol=1e-6, atol=1e-6)
    assert out[-1] == 0  # nothing beyond the last lane
    assert summed == pytest.approx(x.sum(), abs=1e-5)
