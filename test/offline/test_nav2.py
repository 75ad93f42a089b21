# SPDX-License-Identifier: Apache-2.0
"""Our grid as Nav2 reads it, with the settings in config/nav2, and that these settings fit what the node publishes."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.config import Config, load_config
from occupancy_nn_ros.messages.names import OCCUPANCY_GRID, POINT_CLOUD
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.resources import resource_path
from occupancy_nn_ros.runtime.outputs import OUTPUTS
from occupancy_nn_ros.runtime.player import plan_play, play_bag

FOLDER = Path(__file__).parents[2] / "config" / "nav2"
FREE, INSCRIBED, LETHAL, NO_INFORMATION = 0, 253, 254, 255
NODE = "/occupancy_nn"


def settings(name):
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))["local_costmap"]["local_costmap"][
        "ros__parameters"
    ]


GRID, VOXEL, STVL = (settings(f"local_costmap_{name}.yaml") for name in ("grid", "voxel", "stvl"))
SOURCES = {"voxel": VOXEL["voxel_layer"], "stvl": STVL["stvl_layer"]}


def static_layer_cost(value, costmap):
    """Cost of one cell of an OccupancyGrid, by the documented rules of Nav2's StaticLayer."""
    value = value % 256  # the layer reads the signed byte as an unsigned one, so that -1 is 255
    if value == costmap["unknown_cost_value"]:
        return NO_INFORMATION if costmap["track_unknown_space"] else FREE
    if value == 99:  # the default of inscribed_obstacle_cost_value
        return INSCRIBED
    if value >= costmap["lethal_cost_threshold"]:
        return LETHAL
    return FREE if costmap["trinary_costmap"] else int(value / costmap["lethal_cost_threshold"] * LETHAL)


def rolling_costmap(message, costmap, robot_xy):
    """A rolling costmap after StaticLayer wrote to it: (costs [row, column], x and y of the lower left corner).

    Only ``origin.position`` counts. The window follows the robot in whole cells. Cells outside of the grid stay as they
    were: unknown where that is tracked.
    """
    assert costmap["rolling_window"] and not costmap["use_maximum"]
    resolution, info = costmap["resolution"], message.info
    columns, rows = (round(costmap[side] / resolution) for side in ("width", "height"))
    sizes = costmap["width"], costmap["height"]
    low = [math.trunc((at - size / 2) / resolution) * resolution for at, size in zip(robot_xy, sizes, strict=True)]
    costs = np.full((rows, columns), NO_INFORMATION if costmap["track_unknown_space"] else FREE)
    for row in range(rows):
        for column in range(columns):
            x, y = low[0] + (column + 0.5) * resolution, low[1] + (row + 0.5) * resolution
            i = math.floor((x - info.origin.position.x) / info.resolution)
            j = math.floor((y - info.origin.position.y) / info.resolution)
            if 0 <= i < info.width and 0 <= j < info.height:
                costs[row, column] = static_layer_cost(int(message.data[j * info.width + i]), costmap)
    return costs, low


def true_costs(view, config, shape, low, resolution):
    """What the costs should be, from the map itself: column by column of voxels in the height band."""
    edge, base_z = view.window.voxel_size_m, view.T_map_base[2, 3]
    heights = (view.window.origin[2] + np.arange(view.window.shape[2]) + 0.5) * edge - base_z
    band = (heights >= config.min_height_m - 1e-6) & (heights < config.max_height_m - 1e-6)
    costs = np.full(shape, NO_INFORMATION)
    for row, column in np.ndindex(shape):
        x, y = low[0] + (column + 0.5) * resolution, low[1] + (row + 0.5) * resolution
        i, j = math.floor(x / edge) - view.window.origin[0], math.floor(y / edge) - view.window.origin[1]
        if 0 <= i < view.window.shape[0] and 0 <= j < view.window.shape[1]:
            voxels = view.state[i, j, band]
            costs[row, column] = LETHAL if (voxels == 1).any() else FREE if (voxels == 0).any() else NO_INFORMATION
    return costs


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """The demonstration drive, mapped with a keyframe every eight seconds: final map, settings, and grids by topic."""
    out = tmp_path_factory.mktemp("nav2")
    config = load_config([], ["keyframes.distance_m=50", "keyframes.angle_rad=7", "keyframes.max_period_s=8"])
    with BagReader(resource_path("demo/drive.mcap")) as reader:
        result = play_bag(reader, plan_play(reader, config), out)
    with BagReader(out / "map.mcap") as reader:
        grids = {
            name: deserialize(OCCUPANCY_GRID, [m.cdr for m in reader.messages([f"{NODE}/{name}"])][-1])
            for name in ("occupancy_grid", "occupancy_probability")
        }
    return result.view, config, grids


def test_every_obstacle_is_lethal_free_is_free_and_unknown_is_unknown(drive):
    view, config, grids = drive
    robot = view.T_map_base[:2, 3]
    costs, low = rolling_costmap(grids["occupancy_grid"], GRID, robot)
    expected = true_costs(view, config.grid, costs.shape, low, GRID["resolution"])
    assert np.array_equal(costs, expected)
    cells = (0.2 / GRID["resolution"]) ** 2
    assert (expected == LETHAL).sum() > 100 * cells
    assert (expected == FREE).sum() > 200 * cells
    assert (expected == NO_INFORMATION).sum() > 20 * cells
    assert set(np.unique(costs)) == {FREE, LETHAL, NO_INFORMATION}


def test_a_costmap_wider_than_the_map_is_unknown_beyond_it(drive):
    view, config, grids = drive
    wide = {**GRID, "width": 40, "height": 40, "resolution": 0.2}
    costs, low = rolling_costmap(grids["occupancy_grid"], wide, view.T_map_base[:2, 3])
    assert np.array_equal(costs, true_costs(view, config.grid, costs.shape, low, 0.2))
    assert (costs[:10] == NO_INFORMATION).all() and (costs[:, -10:] == NO_INFORMATION).all()


@pytest.mark.parametrize(
    ("topic", "change", "lost"),
    [
        ("occupancy_grid", {"track_unknown_space": False}, NO_INFORMATION),
        ("occupancy_probability", {}, LETHAL),  # 98 percent is read as free
    ],
)
def test_the_traps_that_the_settings_avoid_are_real(drive, topic, change, lost):
    view, config, grids = drive
    costs, low = rolling_costmap(grids[topic], {**GRID, **change}, view.T_map_base[:2, 3])
    expected = true_costs(view, config.grid, costs.shape, low, GRID["resolution"])
    assert (expected == lost).sum() > 100
    assert (costs[expected == lost] == FREE).all()


def test_the_grid_is_one_that_nav2_accepts(drive):
    grid = drive[2]["occupancy_grid"]
    info, turn = grid.info, grid.info.origin.orientation
    assert grid.header.frame_id == GRID["global_frame"]
    assert (turn.x, turn.y, turn.z, turn.w) == (0, 0, 0, 1)
    assert 0 < info.width <= 32767 and 0 < info.height <= 32767 and info.resolution > 1e-6
    assert len(grid.data) == info.width * info.height
    for origin in (info.origin.position.x, info.origin.position.y):
        assert origin / info.resolution == pytest.approx(round(origin / info.resolution), abs=1e-4)


def test_these_are_the_settings():
    assert sorted(path.name for path in FOLDER.iterdir()) == [
        f"local_costmap_{name}.yaml" for name in ("grid", "stvl", "voxel")
    ]


@pytest.mark.parametrize("costmap", [GRID, VOXEL, STVL], ids=["grid", "voxel", "stvl"])
def test_costmaps_roll_with_the_robot_within_the_map(costmap):
    config = Config()
    assert costmap["rolling_window"] is True  # else every grid would resize the costmap
    assert (costmap["global_frame"], costmap["robot_base_frame"]) == (config.map_frame, config.base_frame)
    assert max(costmap["width"], costmap["height"]) <= config.map.size_xy_m
    assert all(isinstance(costmap[side], int) for side in ("width", "height"))  # Nav2 declares them so
    assert costmap["plugins"][-1] == "inflation_layer"
    assert all(costmap[name]["plugin"] for name in costmap["plugins"])
    cells = config.voxel_size_m / costmap["resolution"]
    assert cells == pytest.approx(round(cells))


def test_the_grid_layer_listens_to_a_topic_that_the_node_publishes():
    layer = GRID["occupancy_layer"]
    (topic,) = [topic for topic in OUTPUTS if f"{NODE}/{topic.name}" == layer["map_topic"]]
    assert (topic.msgtype, topic.is_latched) == (OCCUPANCY_GRID, layer["map_subscribe_transient_local"])
    assert (GRID["trinary_costmap"], GRID["track_unknown_space"]) == (True, True)
    assert layer["subscribe_to_updates"] is False  # the node sends whole grids


@pytest.mark.parametrize("layer", SOURCES.values(), ids=SOURCES)
def test_cloud_layers_listen_to_a_topic_that_the_node_publishes_in_its_height_band(layer):
    (name,) = layer["observation_sources"].split()
    source, config = layer[name], Config()
    (topic,) = [topic for topic in OUTPUTS if f"{NODE}/{topic.name}" == source["topic"]]
    assert (topic.msgtype, source["data_type"]) == (POINT_CLOUD, "PointCloud2")
    assert source["sensor_frame"] == config.base_frame  # else ranges would be measured from the origin of the map frame
    heights = source["min_obstacle_height"], source["max_obstacle_height"]
    assert heights == (config.grid.min_height_m, config.grid.max_height_m)
    reach = source.get("obstacle_max_range", source.get("obstacle_range"))
    assert reach >= math.hypot(VOXEL["width"], VOXEL["height"]) / 2
    slowest_s = max(config.outputs.voxels_period_s, config.keyframes.max_period_s)
    assert source["expected_update_rate"] > 2 * slowest_s
    assert source["observation_persistence"] == 0.0  # the newest cloud is the whole map


@pytest.mark.parametrize("costmap", [VOXEL, STVL], ids=["voxel", "stvl"])
def test_cloud_costmaps_have_cells_as_large_as_voxels(costmap):
    """These layers mark one cell for each point: smaller cells would leave holes in walls."""
    assert costmap["resolution"] == Config().voxel_size_m


def test_the_voxel_layer_holds_the_height_band_and_the_robot():
    layer = VOXEL["voxel_layer"]
    top = layer["origin_z"] + layer["z_resolution"] * layer["z_voxels"]
    assert layer["z_voxels"] <= 16
    assert layer["origin_z"] < 0 < layer["max_obstacle_height"] <= top  # base_link lies inside: rays start there
    assert layer["min_obstacle_height"] <= layer["occupancy"]["min_obstacle_height"]
    assert layer["occupancy"]["clearing"] is True
    assert layer["occupancy"]["raytrace_max_range"] >= layer["occupancy"]["obstacle_max_range"]


def test_stvl_forgets_soon_after_a_cloud_that_no_longer_holds_a_voxel():
    layer, config = STVL["stvl_layer"], Config()
    slowest_s = max(config.outputs.voxels_period_s, config.keyframes.max_period_s)
    assert 2 * slowest_s < layer["voxel_decay"] <= 5.0
    assert (layer["decay_model"], layer["voxel_size"]) == (0, config.voxel_size_m)
    assert layer["occupancy"]["clear_after_reading"] is True  # else the last cloud would be marked for ever
