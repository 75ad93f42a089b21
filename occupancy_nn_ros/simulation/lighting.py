# SPDX-License-Identifier: Apache-2.0
"""Light of a world as MuJoCo elements: lamps, the sun, windows, and floors that mirror."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.simulation.world import World

GLOSSY_SHARE = 0.4
"""Share of furnished worlds whose floor mirrors what stands on it."""

WINDOW_SHARE = 0.6
"""Share of furnished worlds with light that falls in from the side and casts shadows."""


def floor_reflectance(world: World) -> float:
    """Share of light that the ground mirrors, 0 in most worlds."""
    rng = np.random.default_rng([world.seed, 78])
    return float(rng.uniform(0.03, 0.25)) if _is_furnished(world) and rng.random() < GLOSSY_SHARE else 0.0


def lights_xml(world: World, rng: np.random.Generator) -> str:
    """The sun over streets, lamps below the ceiling elsewhere, and light from windows in furnished worlds."""
    low_x, low_y, high_x, high_y = world.bounds
    if world.name.startswith("street"):
        direction = (rng.uniform(-1, 1), rng.uniform(-1, 1), -1.0)
        shadow = "true" if rng.random() < 0.5 else "false"
        return (
            f"<light directional='true' pos='0 0 20' dir='{numbers(direction)}' diffuse='{grey(rng, 0.4, 0.8)}' "
            f"castshadow='{shadow}'/>"
        )
    lights = ""
    for _ in range(int(rng.integers(1, 4))):
        place = (rng.uniform(low_x, high_x) * 0.7, rng.uniform(low_y, high_y) * 0.7, rng.uniform(1.8, 2.35))
        lights += (
            f"<light pos='{numbers(place)}' dir='0 0 -1' cutoff='90' exponent='0' "
            f"attenuation='1 {rng.uniform(0, 0.08):.3f} 0' "
            f"diffuse='{grey(rng, 0.3, 0.7)}' castshadow='false'/>"
        )
    if _is_furnished(world) and rng.random() < WINDOW_SHARE:
        lights += _window_xml(world, rng)
    return lights


def _window_xml(world: World, rng: np.random.Generator) -> str:
    """A light in an outer wall that shines across the room."""
    low, high = np.array(world.bounds[:2]), np.array(world.bounds[2:])
    place = rng.uniform(low, high)
    axis, side = int(rng.integers(2)), int(rng.integers(2))
    place[axis] = (low, high)[side][axis] + (0.15, -0.15)[side]
    across = np.zeros(2)
    across[axis] = (1.0, -1.0)[side]
    direction = (*(across + rng.uniform(-0.4, 0.4, 2)), rng.uniform(-0.6, -0.1))
    return (
        f"<light pos='{numbers((*place, rng.uniform(1.2, 2.0)))}' dir='{numbers(direction)}' cutoff='80' exponent='1' "
        f"attenuation='1 {rng.uniform(0.05, 0.2):.3f} 0' diffuse='{grey(rng, 0.5, 1.1)}' castshadow='true'/>"
    )


def _is_furnished(world: World) -> bool:
    return world.texture_family.startswith("real_")


def grey(rng: np.random.Generator, low: float, high: float) -> str:
    """A nearly grey colour between two levels."""
    return numbers(rng.uniform(low, high) * (1 + rng.uniform(-0.12, 0.12, 3)))


def numbers(values: npt.ArrayLike) -> str:
    """Values as MuJoCo reads them."""
    return " ".join(f"{float(v):.5f}" for v in np.asarray(values, dtype=np.float64))
