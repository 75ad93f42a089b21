# SPDX-License-Identifier: Apache-2.0
"""Snapshots as entities of a Rerun recording, and the layout that shows them. Needs the ``view`` extra.

| entity | what |
|---|---|
| ``map/voxels`` ``map/ceiling`` | occupied voxels up to, and above, ``CEILING_M`` over the robot's base |
| ``map/grid`` | the 2D grid, as a picture on the floor |
| ``map/path`` ``map/robot`` | where the robot was and is |
| ``map/cameras/NAME`` | the camera's pose, its picture and the predicted depth |
| ``grid`` | the 2D grid as Nav2 sees it |
| ``latency_ms/STAGE`` ``dropped/REASON`` | plots |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from occupancy_nn_ros.config import GridConfig
from occupancy_nn_ros.errors import MissingDependencyError
from occupancy_nn_ros.values import Float32Array, FloatArray, MapView, PosedDepth, PosedImage, UInt8Array, VoxelState
from occupancy_nn_ros.visualization.colors import DEPTH_SPAN_M, ColorBy, voxel_colors
from occupancy_nn_ros.visualization.snapshot import CEILING_M, Snapshot
from occupancy_nn_ros.visualization.top_down import top_down_image

APPLICATION = "occupancy_nn_ros"
TIMELINE = "stamp"
JPEG_QUALITY = 80
MAX_VOXELS = 200_000
"""More boxes than this make a viewer slow; of more, the nearest to the robot are shown."""


def import_rerun() -> Any:
    """The Rerun SDK.

    Raises:
        MissingDependencyError: it is not installed.
    """
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
        self._cameras: tuple[str, ...] = ()
        self._log("map", self._rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)

    def write(self, snapshot: Snapshot) -> None:
        """Write one snapshot at the time of its map."""
        view = snapshot.view
        self._recording.set_time(TIMELINE, timestamp=np.datetime64(view.stamp_ns, "ns"))
        cameras = tuple(image.camera for image in snapshot.images)
        if cameras and cameras != self._cameras:
            self._cameras = cameras
            self._recording.send_blueprint(layout([_entity(name) for name in cameras], view.T_map_base[:3, 3]))
        self._write_map(view)
        for image in snapshot.images:
            self._write_image(image)
        for depth in snapshot.depths:
            self._write_depth(depth)
        for stage, value in snapshot.latency_ms.items():
            self._log(f"latency_ms/{_entity(stage)}", self._rr.Scalars(value))
        for reason, count in snapshot.dropped.items():
            self._log(f"dropped/{_entity(reason)}", self._rr.Scalars(count))

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
        self._log(
            f"{entity}/image",
            self._rr.DepthImage(depth.depth_m, meter=1.0, colormap="turbo", depth_range=DEPTH_SPAN_M),
        )

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


def layout(cameras: Sequence[str], base_m: FloatArray) -> Any:
    """A blueprint: the map on the left; on the right pictures above their depth, the grid, and the plots.

    Args:
        cameras: names of their entities.
        base_m: (3,) where the robot starts, looked at from behind and above.
    """
    rrb = import_rerun().blueprint
    eye = rrb.EyeControls3D(position=base_m + np.array([-6.0, -5.0, 8.0]), look_target=base_m, eye_up=(0.0, 0.0, 1.0))
    space = rrb.Spatial3DView(
        origin="map", name="map", contents=["$origin/**", "- $origin/depth/**"], eye_controls=eye,
        overrides={"map/ceiling": rrb.EntityBehavior(visible=False)},
    )  # fmt: skip
    looks = rrb.Grid(
        *(
            rrb.Spatial2DView(origin=f"map/{kind}/{name}", name=f"{name}, {words}")
            for kind, words in (("cameras", "picture"), ("depth", "predicted depth"))
            for name in cameras
        ),
        grid_columns=max(len(cameras), 1),
    )
    plots = rrb.Horizontal(
        rrb.Spatial2DView(origin="grid", name="grid for navigation"),
        rrb.Vertical(
            rrb.TimeSeriesView(origin="latency_ms", name="milliseconds by stage"),
            rrb.TimeSeriesView(origin="dropped", name="frames not used"),
        ),
    )
    return rrb.Blueprint(rrb.Horizontal(space, rrb.Vertical(looks, plots), column_shares=[1, 1]), collapse_panels=True)


def _entity(name: str) -> str:
    """A name without characters that mean something in entity paths."""
    return re.sub(r"[^\w]+", "_", name).strip("_") or "unnamed"
