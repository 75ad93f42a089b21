# SPDX-License-Identifier: Apache-2.0
"""What settings cost that do not fit each other: a map comes of them, but not the one that each of them asks for."""

from __future__ import annotations

from occupancy_nn_ros.config import Config


def doubts_about(config: Config) -> dict[str, str]:
    """What speaks against some settings beside others, worded for people, by the setting to change; empty where all fit."""
    return {
        **_doubts_of_time(config),
        **_doubts_of_space(config),
        **_doubts_of_steps(config),
        **_doubts_of_source(config),
    }


def _doubts_of_time(config: Config) -> dict[str, str]:
    keyframes, map_, found = config.keyframes, config.map, {}
    longest_s = max(keyframes.min_period_s, keyframes.max_period_s)
    standing = f"a robot that stands still updates its map every {longest_s:g} s (keyframes.max_period_s)"
    if 0 < keyframes.max_period_s < keyframes.min_period_s:
        found["keyframes.max_period_s"] = (
            f"keyframes.max_period_s is {keyframes.max_period_s:g} and keyframes.min_period_s is {keyframes.min_period_s:g}, expected no "
            f"more than that: the map is updated every {longest_s:g} s at most"
        )
    if 0 < config.outputs.stale_after_s <= longest_s:
        found["outputs.stale_after_s"] = (
            f"outputs.stale_after_s is {config.outputs.stale_after_s:g}, and {standing}, expected more than that: its grids are unknown "
            "in between"
        )
    if config.sync.max_wait_s > config.sync.tf_cache_s:
        found["sync.tf_cache_s"] = (
            f"sync.tf_cache_s is {config.sync.tf_cache_s:g} and sync.max_wait_s is {config.sync.max_wait_s:g}, expected no less than "
            "that: frames wait for some transforms until others are forgotten"
        )
    if map_.forget_model != "off" and map_.forget_after_s < longest_s:
        found["map.forget_after_s"] = (
            f"map.forget_after_s is {map_.forget_after_s:g}, and {standing}, expected more than that: it is forgotten in between"
        )
    return found


def _doubts_of_space(config: Config) -> dict[str, str]:
    map_, grid, found = config.map, config.grid, {}
    if grid.reference == "base" and grid.max_height_m > map_.above_m + config.voxel_size_m / 2:
        found["grid.max_height_m"] = (
            f"grid.max_height_m is {grid.max_height_m:g} and map.above_m is {map_.above_m:g}, expected no less than that: what stands "
            "higher is not in the map, nor in the grid"
        )
    if 0 < map_.forget_beyond_m < map_.size_xy_m / 2 and map_.remember_mib:
        found["map.remember_mib"] = (
            f"map.remember_mib is {map_.remember_mib} and map.forget_beyond_m is {map_.forget_beyond_m:g}, expected 0, or half of "
            f"map.size_xy_m at least: places are forgotten before they leave the window, and none is remembered"
        )
    return found


def _doubts_of_steps(config: Config) -> dict[str, str]:
    grid, edge, found = config.grid, config.voxel_size_m, {}
    for name, step_m in (("grid.max_step_down_m", grid.max_step_down_m), ("grid.max_step_up_m", grid.max_step_up_m)):
        if 0 < step_m < edge:
            found[name] = (
                f"{name} is {step_m:g} and voxel_size_m is {edge:g}, expected voxels no larger than that: steps below {step_m + edge:g} m "
                "are missed"
            )
    if grid.max_step_down_m > config.map.below_m:
        found["grid.max_step_down_m"] = (
            f"grid.max_step_down_m is {grid.max_step_down_m:g} and map.below_m is {config.map.below_m:g}, expected no less than that: "
            "ground so far down is not in the map, and what lies above it is taken for an edge"
        )
    return found


def _doubts_of_source(config: Config) -> dict[str, str]:
    if config.source == "network" or not config.network.depth_model:
        return {}
    text = f"network.depth_model is set and source is {config.source}, expected network: no network runs, nor does this one"
    return {"network.depth_model": text}
