# SPDX-License-Identifier: Apache-2.0
"""The groups of settings, each a frozen dataclass; :class:`~occupancy_nn_ros.config.Config` holds one of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.setting_conflicts import check_reachable
from occupancy_nn_ros.setting_texts import body_boxes, check_class_values
from occupancy_nn_ros.settings import CheckedSettings, check_order, setting


@dataclass(frozen=True)
class MapConfig(CheckedSettings):
    """The rolling map."""

    size_xy_m: float = setting(24.0, "Edge of the square window that moves with the robot.", low=1.0, high=500.0)
    below_m: float = setting(1.2, "How far the window reaches below base_frame.", low=0.0, high=50.0)
    above_m: float = setting(2.8, "How far the window reaches above base_frame.", low=0.2, high=50.0)
    log_odds_min: float = setting(-3.0, "Lower clamp of a voxel's log-odds.", low=-20.0, high=-0.1)
    log_odds_max: float = setting(4.0, "Upper clamp of a voxel's log-odds.", low=0.1, high=20.0)
    hit_log_odds: float = setting(0.85, "Added where a depth or LiDAR ray ends.", low=0.01, high=10.0)
    pass_log_odds: float = setting(-0.4, "Added where a depth or LiDAR ray passes.", low=-10.0, high=-0.01)
    max_range_m: float = setting(8.0, "Rays and predictions further from the sensor are not used.", low=0.5, high=200.0)
    occupied_probability: float = setting(0.55, "A voxel at or above this is occupied.", low=0.5, high=0.99, live=True)
    free_probability: float = setting(0.45, "A voxel at or below this is free.", low=0.01, high=0.5, live=True)
    forget_model: Literal["off", "linear", "exponential"] = setting(
        "off", "How voxels that are not seen again return to unknown.", live=True
    )
    forget_after_s: float = setting(30.0, "Time constant of forgetting.", low=0.1, high=1e6, live=True)
    forget_beyond_m: float = setting(
        0.0, "Voxels further than this from base_frame are forgotten; 0: none.", low=0.0, high=1000.0, live=True
    )
    clear_in_view_s: float = setting(
        0.25, "Time constant with which an occupied voxel that is seen free decays.", low=0.01, high=1e6, live=True
    )
    drop_unseen: bool = setting(
        True, "Topics and saved maps leave out what no free way joins with where sensors have been.", live=True
    )
    remember_mib: int = setting(0, "Memory for places that left the window; 0: forgotten.", low=0, high=1 << 20)

    def __post_init__(self) -> None:
        """Check ranges, and that voxels can become occupied and free."""
        super().__post_init__()
        check_reachable("map.occupied_probability", self.occupied_probability, "map.log_odds_max", self.log_odds_max)
        check_reachable("map.free_probability", self.free_probability, "map.log_odds_min", self.log_odds_min)


@dataclass(frozen=True)
class GridConfig(CheckedSettings):
    """The 2D occupancy grid cut from the map."""

    min_height_m: float = setting(0.2, "Bottom of the height band above base_frame.", low=-50.0, high=50.0, live=True)
    max_height_m: float = setting(1.6, "Top of the height band above base_frame.", low=-50.0, high=50.0, live=True)
    min_known_voxels: int = setting(
        1, "Free voxels that a column of the band needs to be called free.", low=1, high=1000, live=True
    )
    reference: Literal["base", "ground"] = setting(
        "base",
        "What the height band lies above: base_frame, or the ground that the map shows, so that ramps and bumps are no "
        "obstacles.",
        live=True,
    )
    class_costs: str = setting(
        "",
        "Costs of classes in ~/cost_grid, 0 to 100, such as 'vegetation=30, object=90'; others are lethal (100).",
        live=True,
    )
    class_margins_m: str = setting(
        "", "How far around a class its cost reaches in ~/cost_grid, such as 'person=0.5'.", live=True
    )
    max_step_down_m: float = setting(
        0.0,
        "Where the ground falls by more than this, or ends with nothing seen below, the grid is lethal; 0: not looked for. Needs a "
        "depth camera or LiDAR: the shipped network marks edges late, half a metre and more beyond them.",
        low=0.0,
        high=10.0,
        live=True,
    )
    max_step_up_m: float = setting(
        0.0,
        "Where the ground rises by more than this from one cell to the next, the grid is lethal; steps are seen to within a "
        "voxel. 0: not looked for.",
        low=0.0,
        high=10.0,
        live=True,
    )

    def __post_init__(self) -> None:
        """Check ranges and the entries for classes."""
        super().__post_init__()
        for name, entries, high in (
            ("class_costs", self.class_costs, 100.0),
            ("class_margins_m", self.class_margins_m, 10.0),
        ):
            try:
                check_class_values(entries, high)
            except ConfigError as error:
                raise ConfigError(f"grid.{name}: {error}") from None
        check_order(self, "min_height_m", "max_height_m")


@dataclass(frozen=True)
class RobotConfig(CheckedSettings):
    """The robot itself."""

    body: str = setting(
        "",
        "Boxes in base_frame that hold the robot's body, which never marks: x y z of the lowest and of the highest corner in "
        "metres, several boxes separated by semicolons, such as '-0.3 -0.25 0.05 0.3 0.25 0.6'.",
    )

    def __post_init__(self) -> None:
        """Check that the boxes are boxes."""
        super().__post_init__()
        body_boxes(self.body)


@dataclass(frozen=True)
class SyncConfig(CheckedSettings):
    """Matching the frames of several cameras."""

    tolerance_s: float = setting(0.05, "Frames of one set lie at most this far apart.", low=0.0, high=10.0)
    min_cameras: int = setting(
        0, "Cameras a set needs; 0: all of them that sent something in the last 5 s.", low=0, high=64
    )
    queue: int = setting(20, "Frames kept for each camera while waiting for the others.", low=1, high=1000)
    queue_mib: int = setting(
        512,
        "Memory for frames that wait for others, and again for sets that wait for transforms.",
        low=32,
        high=1 << 16,
    )
    max_wait_s: float = setting(0.5, "A set waits this long for missing frames and for transforms.", low=0.0, high=60.0)
    tf_cache_s: float = setting(10.0, "Transforms older than this are dropped.", low=0.5, high=3600.0)


@dataclass(frozen=True)
class KeyframeConfig(CheckedSettings):
    """When a frame set becomes a map update."""

    distance_m: float = setting(0.1, "Motion of base_frame that triggers a keyframe.", low=0.0, high=100.0, live=True)
    angle_rad: float = setting(0.1, "Rotation of base_frame that triggers a keyframe.", low=0.0, high=7.0, live=True)
    min_period_s: float = setting(0.1, "Never more often than this.", low=0.0, high=60.0, live=True)
    max_period_s: float = setting(1.0, "At least this often, even standing still.", low=0.0, high=3600.0, live=True)
    max_age_s: float = setting(
        5.0,
        "A keyframe that waited longer than this for those before it is dropped by the node, by the sensors' time; a newer one "
        "always takes its place.",
        low=0.1, high=3600.0, live=True,
    )  # fmt: skip


@dataclass(frozen=True)
class NetworkConfig(CheckedSettings):
    """How the network is run."""

    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    threads: int = setting(
        0, "Threads that a keyframe is split over on a CPU; 0: as many as there are cores to use.", low=0, high=256
    )
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "Of activations; bfloat16 is less exact. auto: bfloat16 on a CPU that multiplies in it, where convolutions take half"
        " the time, float32 on others and on a GPU.",
    )
    canvas_pixels: int = setting(
        0,
        "Pixels of each undistorted image that the network is shown, about: more take longer and, up to a point, show more;"
        " 0: as the model says.",
        low=0,
        high=4194304,
    )
    past_keyframes: int = setting(8, "Past keyframes kept for matching.", low=0, high=32)
    look_again_after: int = setting(
        4,
        "Keyframes from other places after which one is looked at again, matched with those after it too, if no newer one waits;"
        " at most past_keyframes less one; 0: never.",
        low=0,
        high=31,
    )
    sources: int = setting(
        6,
        "Views, past or of other cameras, that each view is matched against: more is better and slower.",
        low=0,
        high=8,
    )
    coarse_m: float = setting(
        0.4, "Ask about cubes up to this edge first, about voxels where they are not clearly free; 0: about all voxels.",
        low=0.0, high=2.0,
    )  # fmt: skip
    gain: float = setting(
        1.0, "Scales the log-odds that one prediction adds to the map.", low=0.01, high=10.0, live=True
    )
    align_poses: bool = setting(
        True,
        "Correct the poses of cameras, by centimetres and tenths of a degree at most, where the images of successive keyframes"
        " clearly disagree with them; the transforms of others stay as they are.",
    )
    sure_depth: float = setting(
        0.8, "Depth that the network gives more than this probability also carves the map as a depth image; 1: none.",
        low=0.1, high=1.0,
    )  # fmt: skip
    depth_model: str = setting(
        "",
        "A single-image depth network (.onnx) to run beside ours: its depth, fitted to what is sure in each image, carves the map "
        "too; empty: none.",
    )

    @property
    def places_until_again(self) -> int:
        """After how many further places a keyframe is looked at again, 0 if none is: it must still be kept, and depth be looked for."""
        return 0 if self.sure_depth == 1 else max(0, min(self.look_again_after, self.past_keyframes - 1))


@dataclass(frozen=True)
class OutputConfig(CheckedSettings):
    """How often each output goes out while somebody listens; 0 means with every map update."""

    grid_period_s: float = setting(
        0.0,
        "occupancy_grid, occupancy_probability, cost_grid, scan, moving, distance_field.",
        low=0.0,
        high=60.0,
        live=True,
    )
    depth_period_s: float = setting(
        0.0, "Depth images of the cameras, and their camera_info.", low=0.0, high=60.0, live=True
    )
    voxels_period_s: float = setting(
        0.5, "voxel_grid, occupied_voxels, markers, mesh, octomap_binary.", low=0.0, high=60.0, live=True
    )
    voxels_max_mb_s: float = setting(
        0.0,
        "Limit in MB/s for what voxels_period_s is for, together; it goes out less often when over it; 0: none.",
        low=0.0,
        high=1e4,
        live=True,
    )
    max_distance_m: float = setting(5.0, "Truncation of the distance field.", low=0.1, high=100.0)
    moving_s: float = setting(
        2.0, "moving shows where things that move were within so long.", low=0.1, high=60.0, live=True
    )
    scan_max_range_m: float = setting(10.0, "Length of the beams of scan.", low=0.1, high=100.0, live=True)
    color_by: Literal["height", "class", "camera"] = setting(
        "height", "Colours of markers and clouds; camera: as the cameras saw each voxel, 8 bytes a voxel.", live=True
    )
    markers_min_height_m: float = setting(
        0.2,
        "markers and mesh start at this height above base_frame; -50: with the floor.",
        low=-50.0,
        high=50.0,
        live=True,
    )
    markers_max_height_m: float = setting(
        1.6,
        "markers and mesh end at this height above base_frame; 50: with the ceiling.",
        low=-50.0,
        high=50.0,
        live=True,
    )
    grid_repeat_s: float = setting(
        0.0,
        "Without a map update for so long the newest grids go out again as they were, with the stamp they had, so that their rate "
        "does not fall with that of keyframes on a busy computer; 0: never.",
        low=0.0, high=60.0,
    )  # fmt: skip
    stale_after_s: float = setting(
        0.0, "Without a map update for so long the latched grids go out once more, unknown everywhere; 0: never.",
        low=0.0, high=3600.0, live=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check ranges and the band of the markers."""
        super().__post_init__()
        check_order(self, "markers_min_height_m", "markers_max_height_m")
