# SPDX-License-Identifier: Apache-2.0
"""Free space that is called occupied: how fast the map doubts it, and where it does not."""

import numpy as np
import pytest
import torch

from occupancy_nn_ros.config import MapConfig
from occupancy_nn_ros.mapping.appearing import AMID_M, DOUBT_S, NEAR_M, doubt_free_space
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.values import LatticeWindow, Prediction

EDGE, SURE, PERIOD_NS = 0.2, -3.0, 300_000_000
LOGIT, WEIGHT = 2.0, 0.5
LEFT = SURE / np.exp(WEIGHT / (1 + np.exp(-LOGIT)) * 0.3 / DOUBT_S)
"""What one look leaves of the certainty that a voxel is free."""


def free_map(moves=()):
    """A map that was seen free everywhere, and a robot in its middle that came there by ``moves``."""
    grid = RollingMap(EDGE, (50, 50, 6), MapConfig(drop_unseen=False))
    for origin in (*moves, (-25, -25, -3)):
        grid.move_origin(origin)
    grid.integrate(says(grid.window, -50.0, {}), 0)
    assert (grid.log_odds == SURE).all()
    return grid


def says(window, usual, cells):
    """A prediction: log-odds of some lattice cells, and of all others."""
    logit = torch.full(window.shape, usual)
    for cell, value in cells.items():
        logit[tuple(np.subtract(cell, window.origin))] = value
    return Prediction(window, logit, torch.full(window.shape, WEIGHT), None, None, (), 0.0)


def look(grid, cells, usual=-3.0, window=None, after_ns=PERIOD_NS):
    doubt_free_space(grid, says(window or grid.window, usual, cells), np.zeros(3), grid.time_ms(after_ns))


def value(grid, cell):
    return float(grid.in_window_order(grid.log_odds)[tuple(np.subtract(cell, grid.window.origin))])


@pytest.mark.parametrize("moves", [(), ((-40, -31, -2),)], ids=["whole", "split storage"])
def test_what_stands_amid_free_space_takes_its_certainty_by_time_and_probability(moves):
    grid = free_map(moves)
    look(grid, {(5, -3, 0): LOGIT, (5, -3, 1): LOGIT})
    assert value(grid, (5, -3, 0)) == pytest.approx(LEFT, rel=1e-5)
    assert value(grid, (5, -3, 1)) == pytest.approx(LEFT, rel=1e-5)
    assert int((grid.log_odds != SURE).sum()) == 2


def test_a_look_after_a_long_time_counts_for_half_a_second():
    grid = free_map()
    look(grid, {(5, -3, 0): LOGIT}, after_ns=60 * 10**9)
    assert value(grid, (5, -3, 0)) == pytest.approx(
        SURE / np.exp(WEIGHT / (1 + np.exp(-LOGIT)) * 0.5 / DOUBT_S), rel=1e-5
    )


def test_beside_what_is_not_free_nothing_changes():
    reach = round(AMID_M / EDGE)
    grid = free_map()
    wall = says(LatticeWindow(EDGE, (5 + reach, -3, 0), (1, 1, 1)), 50.0, {})
    grid.integrate(wall, 1)
    look(grid, {(5, -3, 0): LOGIT, (4, -3, 0): LOGIT, (5, -3, 1): LOGIT})
    assert value(grid, (5, -3, 0)) == SURE  # within reach of the wall
    assert value(grid, (4, -3, 0)) == pytest.approx(LEFT, rel=1e-5)
    assert value(grid, (5, -3, 1)) == pytest.approx(LEFT, rel=1e-5)  # another layer


def test_neither_far_away_nor_where_the_map_ends_nor_where_nothing_is_known():
    grid = free_map()
    far = round(NEAR_M / EDGE) + 1
    look(grid, {(far, 0, 0): LOGIT, (0, -far - 1, 0): LOGIT})
    assert (grid.log_odds == SURE).all()
    small = RollingMap(EDGE, (9, 9, 6), MapConfig(drop_unseen=False))
    small.move_origin((-4, -4, -3))
    small.integrate(says(small.window, -50.0, {}), 0)
    look(small, {(4, 0, 0): LOGIT, (0, 0, 0): LOGIT})
    assert value(small, (4, 0, 0)) == SURE
    assert value(small, (0, 0, 0)) == pytest.approx(LEFT, rel=1e-5)
    blank = RollingMap(EDGE, (50, 50, 6), MapConfig())
    look(blank, {(0, 0, 0): LOGIT})
    assert (blank.log_odds == 0).all()


@pytest.mark.parametrize("logit", [-1.0, -2.0, float("nan"), float("inf")])
def test_only_what_is_called_occupied_with_a_number_counts(logit):
    grid = free_map()
    look(grid, {(5, -3, 0): logit})
    assert (grid.log_odds == SURE).all()


def test_a_person_who_appears_is_marked_after_fewer_looks():
    """Log-odds of a network that needs some looks to be sure, as measured in a simulated street."""
    looks = [-0.5, 0.3, 1.1, 2.2, 3.9]
    marked = {}
    for doubts in (False, True):
        grid, stamp = free_map(), 0
        for n, logit in enumerate(looks):
            stamp += PERIOD_NS
            told = says(grid.window, -3.0, {(5, -3, 0): logit})
            if doubts:
                doubt_free_space(grid, told, np.zeros(3), grid.time_ms(stamp))
            grid.integrate(told, stamp)
            if doubts not in marked and value(grid, (5, -3, 0)) > 0.2:
                marked[doubts] = n + 1
    assert marked == {False: 5, True: 3}
