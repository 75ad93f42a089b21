# SPDX-License-Identifier: Apache-2.0
"""Snapshots as entities of a Rerun recording, and the layout that shows them. Needs the ``view`` extra.

| entity | what |
|---|---|
| ``map/voxels`` ``map/ceiling`` | occupied voxels up to, and above, ``CEILING_M`` over the robot's base |
| ``map/grid`` | the 2D grid, as a picture on the floor |
| ``map/path`` ``map/robot`` | where the robot was and is |
| ``map/cameras/NAME`` | the camera's pose and picture |
| ``map/depth/NAME`` | the predicted depth in colours, and in metres to look up |
| ``grid`` | the 2D grid as Nav2 sees it |
| ``latency_ms/STAGE`` ``dropped/REASON`` | plots |
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.errors import MissingDependencyError
from occupancy_nn_ros.values import Float32Array, FloatArray, MapView, PosedDepth, PosedImage, UInt8Array, VoxelState
from occupancy_nn_ros.visualization.colors import ColorBy, depth_colors, voxel_colors
from occupancy_nn_ros.visualization.snapshot import CEILING_M, Snapshot
from occupancy_nn_ros.visualization.top_down import top_down_image

APPLICATION = "occupancy_nn_ros"
TIMELINE = "stamp"
JPEG_QUALITY = 80
METRES = "metres"
"""Depth to look up: Rerun's own colours for it say near and not known alike."""

MAX_VOXELS = 200_000
"""More boxes than this make a viewer slow; of more, the nearest to the robot are shown."""


def import_rerun() -> Any:
    """The Rerun SDK, quiet: what it logs of a viewer that is gone is raised too, and said once.

    Raises:
        MissingDependencyError: it is not installed.
    """
    os.environ.setdefault("RUST_LOG", "off")
    try:
        import rerun
        import rerun.blueprint
    except ImportError as error:
        raise MissingDependencyError(
            f"the viewer needs the Rerun SDK ({error}): pip install 'occupancy-nn-ros[view]'"
        ) from None
    return rerun


class RerunLog:
    """Writes snapshots to one recording. Not thread-safe."""

    def __init__(self, recording: Any, grid: GridConfig, color_by: ColorBy) -> None:
        """Write to a ``rerun.RecordingStream``.

        Args:
            recording: where to.
            grid: height band of the 2D grid.
            color_by: what the voxels' colour says.
        """
        self._rr, self._recording = import_rerun(), recording
        self._grid, self._color_by = grid, color_by
        self._path: list[FloatArray] = []
        self._shown: tuple[tuple[str, ...], bool] | None = None
        self._log("map", self._rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)

    def write(self, snapshot: Snapshot) -> None:
        """Write one snapshot at the time of its map."""
        view = snapshot.view
        self._recording.set_time(TIMELINE, timestamp=np.datetime64(view.stamp_ns, "ns"))
        self._lay_out(snapshot)
        self._write_map(view)
        for image in snapshot.images:
            self._write_image(image)
        for depth in snapshot.depths:
            self._write_depth(depth)
        for stage, value in snapshot.latency_ms.items():
            self._log(f"latency_ms/{_entity(stage)}", self._rr.Scalars(value))
        for reason, count in snapshot.dropped.items():
            self._log(f"dropped/{_entity(reason)}", self._rr.Scalars(count))

    def _lay_out(self, snapshot: Snapshot) -> None:
        """Send a layout whenever there is something else to show than there was; a keyframe without pictures changes nothing."""
        cameras, has_plots = tuple(_entity(image.camera) for image in snapshot.images), bool(snapshot.latency_ms)
        if self._shown is None or (cameras and self._shown != (cameras, has_plots)):
            self._shown = cameras, has_plots
            self._recording.send_blueprint(layout(cameras, snapshot.view.T_map_base, has_plots=has_plots))

    def _write_map(self, view: MapView) -> None:
        centers, colors = occupied_boxes(view, self._color_by)
        is_low = centers[:, 2] <= view.T_map_base[2, 3] + CEILING_M
        half = [[view.window.voxel_size_m / 2] * 3]
        for name, part in (("voxels", is_low), ("ceiling", ~is_low)):
            self._log(
                f"map/{name}",
                self._rr.Boxes3D(centers=centers[part], half_sizes=half, colors=colors[part], fill_mode="solid"),
            )
        picture = top_down_image(view, self._grid).transpose(1, 0, 2)[::-1]  # x to the right, y up
        self._log("grid", self._rr.Image(picture))
        self._log("map/grid", self._floor(view, picture))
        self._path.append(view.T_map_base[:3, 3].copy())
        self._log("map/path", self._rr.LineStrips3D([np.array(self._path)], colors=[(208, 28, 139)], radii=0.03))
        tip = view.T_map_base[:3, 0] * 0.6
        self._log(
            "map/robot", self._rr.Arrows3D(origins=[self._path[-1]], vectors=[tip], colors=[(208, 28, 139)], radii=0.06)
        )

    def _floor(self, view: MapView, picture: UInt8Array) -> Any:
        """The grid's picture on a rectangle a little below the robot's base."""
        low = view.window.origin_m
        high = low + np.array(view.window.shape) * view.window.voxel_size_m
        z = float(view.T_map_base[2, 3]) - 0.05
        corners = [(low[0], low[1], z), (high[0], low[1], z), (high[0], high[1], z), (low[0], high[1], z)]
        return self._rr.Mesh3D(
            vertex_positions=corners,
            triangle_indices=[[0, 1, 2], [0, 2, 3]],
            vertex_texcoords=[(0, 1), (1, 1), (1, 0), (0, 0)],
            albedo_texture=np.ascontiguousarray(picture),
        )

    def _write_image(self, image: PosedImage) -> None:
        entity, model = f"map/cameras/{_entity(image.camera)}", image.model
        pose = image.T_map_cam
        self._log(entity, self._rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        self._log(
            entity,
            self._rr.Pinhole(
                image_from_camera=model.K, resolution=(model.width, model.height), image_plane_distance=0.4
            ),
        )
        ok, jpeg = cv2.imencode(".jpg", image.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if ok:
            self._log(f"{entity}/image", self._rr.EncodedImage(contents=jpeg.tobytes(), media_type="image/jpeg"))

    def _write_depth(self, depth: PosedDepth) -> None:
        entity, model = f"map/depth/{_entity(depth.camera)}", depth.model
        pose = depth.T_map_cam
        self._log(entity, self._rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        self._log(entity, self._rr.Pinhole(image_from_camera=model.K, resolution=(model.width, model.height)))
        known = np.where(depth.depth_m > 0, depth.depth_m, np.nan)
        self._log(f"{entity}/image", self._rr.Image(depth_colors(known)))
        self._log(f"{entity}/{METRES}", self._rr.DepthImage(depth.depth_m, meter=1.0))

    def _log(self, entity: str, *what: Any, static: bool = False) -> None:
        self._recording.log(entity, *what, static=static)


def occupied_boxes(view: MapView, color_by: ColorBy) -> tuple[Float32Array, UInt8Array]:
    """Centres (N, 3) in the map frame and colours (N, 3) of the occupied voxels, at most ``MAX_VOXELS``."""
    cells = np.argwhere(view.state == VoxelState.OCCUPIED)
    centers = (cells + view.window.origin + 0.5) * view.window.voxel_size_m
    if len(cells) > MAX_VOXELS:
        nearest = np.argpartition(np.linalg.norm(centers - view.T_map_base[:3, 3], axis=1), MAX_VOXELS)[:MAX_VOXELS]
        cells, centers = cells[nearest], centers[nearest]
    return centers.astype(np.float32), voxel_colors(view, cells, color_by)


def layout(cameras: Sequence[str], T_map_base: FloatArray, *, has_plots: bool = True) -> Any:
    """A blueprint: the map on the left; on the right pictures above their depth, the grid, and the plots.

    Args:
        cameras: names of their entities.
        T_map_base: (4, 4) where the robot is, looked at from behind and above.
        has_plots: whether latency and drops are known.
    """
    rrb = import_rerun().blueprint
    base_m, ahead = T_map_base[:3, 3], T_map_base[:2, 0]
    left = np.array([-ahead[1], ahead[0]])
    eye = rrb.EyeControls3D(
        position=base_m + np.append(-7.0 * ahead + 4.0 * left, 8.0), look_target=base_m + np.append(2.0 * ahead, 0.0),
        eye_up=(0.0, 0.0, 1.0),
    )  # fmt: skip
    space = rrb.Spatial3DView(
        origin="map", name="map", contents=["$origin/**", "- $origin/depth/**"], eye_controls=eye,
        overrides={"map/ceiling": rrb.EntityBehavior(visible=False)},
    )  # fmt: skip
    grid = rrb.Spatial2DView(origin="grid", name="grid for navigation")
    if has_plots:
        plots = rrb.Vertical(
            rrb.TimeSeriesView(origin="latency_ms", name="milliseconds by stage"),
            rrb.TimeSeriesView(origin="dropped", name="frames not used"),
        )
        grid = rrb.Horizontal(grid, plots)
    right = rrb.Vertical(_looks(rrb, cameras), grid) if cameras else grid
    return rrb.Blueprint(rrb.Horizontal(space, right, column_shares=[1, 1]), collapse_panels=True)


def _looks(rrb: Any, cameras: Sequence[str]) -> Any:
    """Pictures of all cameras, and below each its depth."""
    views = [
        rrb.Spatial2DView(
            origin=f"map/{kind}/{name}", name=f"{name}, {words}", contents=["$origin/**", f"- $origin/{METRES}"]
        )
        for kind, words in (("cameras", "picture"), ("depth", "predicted depth"))
        for name in cameras
    ]
    return rrb.Grid(*views, grid_columns=len(cameras))


def _entity(name: str) -> str:
    """A name without characters that mean something in entity paths."""
    return re.sub(r"[^\w]+", "_", name).strip("_") or "unnamed"
