# SPDX-License-Identifier: Apache-2.0
"""What a notebook or another program needs, in one place: from images and poses to answers about space.

Import from here, not from the package's root: ROS generates messages into a package of the same name, whose empty
``__init__.py`` may stand in place of ours (see there). So ``__version__`` is here as well.

>>> from occupancy_nn_ros.api import CameraModel, Keyframe, PosedImage, Predictor, RollingMap

What is listed in ``__all__`` stays as it is within a minor version.
"""

from occupancy_nn_ros.bags.reader import BagPart, BagReader
from occupancy_nn_ros.config import Config, MapConfig, NetworkConfig, load_config
from occupancy_nn_ros.errors import OccupancyError
from occupancy_nn_ros.geometry.poses import invert, make_transform
from occupancy_nn_ros.mapping.exports import save_bt, save_ply
from occupancy_nn_ros.mapping.map_file import load_map, save_map
from occupancy_nn_ros.mapping.queries import cast_rays
from occupancy_nn_ros.mapping.ray_integration import integrate_cloud, integrate_depth
from occupancy_nn_ros.mapping.rolling_map import RollingMap
from occupancy_nn_ros.mapping.slices import occupancy_slice
from occupancy_nn_ros.resources import resource_path
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.player import plan_play, play_bag, read_keyframes
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.values import (
    SEMANTIC_CLASSES,
    CameraModel,
    Keyframe,
    LatticeWindow,
    MapView,
    PosedCloud,
    PosedDepth,
    PosedImage,
    Prediction,
    VoxelState,
)
from occupancy_nn_ros.visualization.depth_picture import draw_depths, render_depths
from occupancy_nn_ros.visualization.top_down import draw_top_down, top_down_image
from occupancy_nn_ros.visualization.voxel_picture import draw_voxels, render_voxels

__version__ = "0.1.0"

__all__ = [
    "SEMANTIC_CLASSES",
    "BagPart",
    "BagReader",
    "CameraModel",
    "Config",
    "Keyframe",
    "LatticeWindow",
    "MapConfig",
    "MapView",
    "NetworkConfig",
    "OccupancyError",
    "OccupancyPipeline",
    "PosedCloud",
    "PosedDepth",
    "PosedImage",
    "Prediction",
    "Predictor",
    "RollingMap",
    "VoxelState",
    "__version__",
    "cast_rays",
    "draw_depths",
    "draw_top_down",
    "draw_voxels",
    "integrate_cloud",
    "integrate_depth",
    "invert",
    "load_config",
    "load_map",
    "make_transform",
    "occupancy_slice",
    "plan_play",
    "play_bag",
    "read_keyframes",
    "render_depths",
    "render_voxels",
    "resource_path",
    "save_bt",
    "save_map",
    "save_ply",
    "top_down_image",
]
