# SPDX-License-Identifier: Apache-2.0
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from occupancy_nn_ros.simulation.lighting import GLOSSY_SHARE, WINDOW_SHARE, floor_reflectance, lights_xml
from occupancy_nn_ros.simulation.world import World

BOUNDS = (-4.0, -3.0, 5.0, 2.0)


def lights(name, seed, family):
    world = World(name, seed, (), BOUNDS, texture_family=family)
    text = lights_xml(world, np.random.default_rng(seed))
    return list(ElementTree.fromstring(f"<all>{text}</all>"))


def test_only_furnished_worlds_have_glossy_floors_and_windows():
    worlds = [World("home", seed, (), BOUNDS, texture_family="real_photo") for seed in range(400)]
    assert np.mean([floor_reflectance(world) > 0 for world in worlds]) == pytest.approx(GLOSSY_SHARE, abs=0.08)
    assert max(floor_reflectance(world) for world in worlds) <= 0.25
    assert floor_reflectance(World("indoor", 1, (), BOUNDS, texture_family="photo")) == 0
    shadows = [lights("home", seed, "real_train")[-1].get("castshadow") == "true" for seed in range(400)]
    assert np.mean(shadows) == pytest.approx(WINDOW_SHARE, abs=0.08)
    assert not any(light.get("castshadow") == "true" for seed in range(50) for light in lights("indoor", seed, "train"))


def test_windows_are_in_walls_and_shine_inwards():
    for seed in range(60):
        *_, window = lights("home", seed, "real_train")
        if window.get("castshadow") != "true":
            continue
        place, direction = (np.array(window.get(key).split(), dtype=float) for key in ("pos", "dir"))
        to_walls = np.array([place[0] + 4.0, 5.0 - place[0], place[1] + 3.0, 2.0 - place[1]])
        wall = np.abs(to_walls - 0.15).argmin()
        assert to_walls[wall] == pytest.approx(0.15, abs=1e-4) and to_walls.min() > 0
        inwards = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])[wall]
        assert direction[:2] @ inwards > 0.5 and direction[2] < 0


def test_streets_have_the_sun():
    (sun,) = lights("street", 3, "train")
    assert sun.get("directional") == "true"
