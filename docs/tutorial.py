# SPDX-License-Identifier: Apache-2.0
"""From a recording to pictures, and from points to answers.

Each ``# %%`` begins a cell: open this file in VS Code or Spyder, or turn it into a notebook with ``jupytext --to notebook``. It also runs
as a script, from any folder: ``python docs/tutorial.py``. The recording is the short simulated drive that comes with the package.
"""

# %% A recording: keyframes hold what all cameras saw at one moment, and where they were.
from pathlib import Path

import numpy as np

from occupancy_nn_ros.api import (
    SEMANTIC_CLASSES,
    BagPart,
    Config,
    OccupancyPipeline,
    VoxelState,
    cast_rays,
    draw_depths,
    draw_top_down,
    draw_voxels,
    load_map,
    occupancy_slice,
    read_keyframes,
    resource_path,
    save_map,
    save_ply,
)

out = Path("out/tutorial")
out.mkdir(parents=True, exist_ok=True)
bag = resource_path("demo/drive.mcap")
keyframes = list(read_keyframes(bag, part=BagPart(0, 3)))
for image in keyframes[0].images:
    print(image.camera, image.image.shape, "stands at", image.T_map_cam[:3, 3].round(2))

# %% The map: the network looks at each keyframe, and the rolling map remembers.
config = Config(voxel_size_m=0.2)
pipeline = OccupancyPipeline(config)
for keyframe in keyframes:
    pipeline.step(keyframe)
grid, newest = pipeline.map, keyframes[-1]
view = grid.view(newest.stamp_ns, "odom", newest.T_map_base)
for state in VoxelState:
    print(state.name.lower(), f"{(view.state == state).mean():.1%}")

# %% Pictures: from above as a planner sees it, all voxels, and how far away the network holds what each camera saw.
path_m = np.stack([keyframe.T_map_base[:3, 3] for keyframe in keyframes])
draw_top_down(view, out / "top_down.png", path_m=path_m)
draw_voxels(view, out / "view_3d.png", path_m=path_m, color_by="class")
draw_depths(list(zip(newest.images, pipeline.prediction.depths, strict=True)), out / "depth.png")

# %% Points to answers: probability, state (-1 unknown, 0 free, 1 occupied) and class, at any points of the map frame.
base = newest.T_map_base
ahead_m = np.array([[d, 0.0, 0.6, 1.0] for d in (0.5, 1.0, 2.0, 3.0, 4.0)]) @ base.T
probability, state = grid.query(ahead_m[:, :3])
classes = grid.classes_at(ahead_m[:, :3])
for point, p, s, c in zip(ahead_m, probability, state, classes, strict=True):
    print(point[:3].round(2), f"{p:.2f}", VoxelState(s).name.lower(), ("", *SEMANTIC_CLASSES)[c])

# %% Rays: how far is it to the next obstacle, in every direction? What is not known stops a ray, too.
angles = np.linspace(-np.pi, np.pi, 13)[:-1]
directions = np.stack([np.cos(angles), np.sin(angles), np.zeros(12)], axis=1) @ base[:3, :3].T
hits = cast_rays(grid, base[:3, 3] + [0, 0, 0.6], directions, 5.0, unknown="occupied")
for angle, distance in zip(np.degrees(angles), hits.distance_m, strict=True):
    print(f"{angle:6.0f} degrees: {distance:.1f} m")

# %% A cost map, and files for other programs.
cost = occupancy_slice(view, config.grid)
print("cells:", {int(value): int((cost.values == value).sum()) for value in np.unique(cost.values)})
save_ply(view, out / "map.ply")
save_map(grid, out / "map.safetensors", "odom")
print("saved in frame", load_map(grid, out / "map.safetensors"))
