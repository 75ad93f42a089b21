# SPDX-License-Identifier: Apache-2.0
"""MuJoCo renders a world: colour, depth and classes for any camera model, and LiDAR ranges."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.errors import MissingDependencyError, SimulationError
from occupancy_nn_ros.geometry.cameras import MAX_TANGENT, unproject
from occupancy_nn_ros.simulation.builder import TEXTURES
from occupancy_nn_ros.simulation.lighting import floor_reflectance, grey, lights_xml, numbers
from occupancy_nn_ros.simulation.mesh_models import mesh_assets, mesh_files, mesh_geoms, part_count
from occupancy_nn_ros.simulation.textures import make_texture
from occupancy_nn_ros.simulation.world import GROUND, Solid, World
from occupancy_nn_ros.values import CameraModel, Float32Array, FloatArray, UInt8Array

FAR_M = 100.0
TILE_HALF_M = 1.2
T_OPTICAL_GL = np.diag([1.0, -1.0, -1.0, 1.0])  # MuJoCo's cameras look along -z with y up


@dataclass(frozen=True)
class RenderedView:
    """What one camera sees.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        depth_m: (H, W) float32 distance along the optical axis; 0 beyond ``FAR_M`` and outside the rendered view.
        classes: (H, W) uint8 class ids, 0 for sky.
    """

    image: UInt8Array
    depth_m: Float32Array
    classes: UInt8Array


@dataclass(frozen=True)
class _Lens:
    """How to turn an ideal pinhole rendering into a camera's own image."""

    width: int
    height: int
    fovy_deg: float
    map_x: Float32Array
    map_y: Float32Array
    outside: npt.NDArray[np.bool_]


class WorldRenderer:
    """Renders one world; a context manager that frees the GL context."""

    def __init__(self, world: World) -> None:
        """Build the MuJoCo model.

        Raises:
            MissingDependencyError: MuJoCo is not installed.
            SimulationError: the model cannot be built.
        """
        os.environ.setdefault("MUJOCO_GL", "egl")
        try:
            import mujoco
        except ImportError as error:
            raise _gl_error(error) from None
        except AttributeError as error:  # PyOpenGL without libEGL fails on a missing function
            raise _gl_error(error) from None
        self._mujoco = mujoco
        self.world = world
        rng = np.random.default_rng([world.seed, 77])
        try:
            xml = _model_xml(world, rng)
            files = _texture_files(world, rng) | mesh_files(world)
            self._model: Any = mujoco.MjModel.from_xml_string(xml, files)
        except ValueError as error:
            raise SimulationError(f"world {world.name} {world.seed} cannot be built: {error}") from None
        self._data: Any = mujoco.MjData(self._model)
        labels = [solid.label for solid in world.solids for _ in range(_geom_count(solid))]
        self._labels = np.array([GROUND, *labels], dtype=np.uint8)
        self._renderers: dict[tuple[int, int], Any] = {}
        self._lenses: dict[CameraModel, _Lens] = {}
        self.set_time(0.0)

    def __enter__(self) -> WorldRenderer:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the GL contexts."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def set_time(self, time_s: float) -> None:
        """Move everything that moves to where it is at a time."""
        for index, mover in enumerate(self.world.movers):
            self._data.mocap_pos[index] = mover.position(time_s)
        self._mujoco.mj_forward(self._model, self._data)

    def render(self, model: CameraModel, T_world_cam: FloatArray, *, with_classes: bool = True) -> RenderedView:
        """Render one camera (optical frame: x right, y down, z forward); without classes it is a third faster."""
        lens = self._lens(model)
        renderer = self._renderer(lens.width, lens.height)
        self._aim(T_world_cam, lens.fovy_deg)
        renderer.update_scene(self._data, 0)
        image = renderer.render()
        renderer.enable_depth_rendering()
        depth = renderer.render()
        renderer.disable_depth_rendering()
        classes = self._classes(renderer) if with_classes else np.zeros(depth.shape, np.uint8)
        depth = np.where(depth < FAR_M, depth, 0).astype(np.float32)
        image = cv2.remap(image, lens.map_x, lens.map_y, cv2.INTER_LINEAR)
        depth = cv2.remap(depth, lens.map_x, lens.map_y, cv2.INTER_NEAREST)
        classes = cv2.remap(classes, lens.map_x, lens.map_y, cv2.INTER_NEAREST)
        image[lens.outside], depth[lens.outside], classes[lens.outside] = 0, 0, 0
        return RenderedView(np.asarray(image, np.uint8), np.asarray(depth, np.float32), np.asarray(classes, np.uint8))

    def _classes(self, renderer: Any) -> UInt8Array:
        renderer.enable_segmentation_rendering()
        geoms = renderer.render()[..., 0]
        renderer.disable_segmentation_rendering()
        return np.where(geoms >= 0, self._labels[np.clip(geoms, 0, len(self._labels) - 1)], 0).astype(np.uint8)

    def scan(self, origin_m: FloatArray, directions: FloatArray, range_m: float) -> Float32Array:
        """LiDAR ranges (N,) from a point along unit directions (N, 3); NaN where nothing is hit within range."""
        count = len(directions)
        hit, distance = np.zeros(count, np.int32), np.zeros(count, np.float64)
        vectors = np.ascontiguousarray(directions, dtype=np.float64).reshape(-1)
        origin = np.asarray(origin_m, dtype=np.float64)
        self._mujoco.mj_multiRay(
            self._model, self._data, origin, vectors, None, True, -1, hit, distance, None, count, range_m
        )
        return np.where((hit >= 0) & (distance <= range_m), distance, np.nan).astype(np.float32)

    def _aim(self, T_world_cam: FloatArray, fovy_deg: float) -> None:
        pose = T_world_cam @ T_OPTICAL_GL
        x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
        self._model.cam_pos[0], self._model.cam_quat[0] = pose[:3, 3], (w, x, y, z)
        self._model.cam_fovy[0] = fovy_deg
        self._mujoco.mj_camlight(self._model, self._data)
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_camlight(self._model, self._data)

    def _renderer(self, width: int, height: int) -> Any:
        if (width, height) not in self._renderers:
            try:
                renderer = self._mujoco.Renderer(self._model, height, width)
                renderer.scene.flags[self._mujoco.mjtRndFlag.mjRND_CULL_FACE] = 0  # furniture shows both of its sides
                self._renderers[width, height] = renderer
            except Exception as error:  # each GL platform raises its own kind
                raise _gl_error(error) from error
        return self._renderers[width, height]

    def _lens(self, model: CameraModel) -> _Lens:
        if model not in self._lenses:
            self._lenses[model] = _make_lens(model)
        return self._lenses[model]


def _make_lens(model: CameraModel) -> _Lens:
    u, v = np.meshgrid(np.arange(model.width), np.arange(model.height))
    tangents = unproject(model, np.stack([u, v], axis=-1).reshape(-1, 2)).reshape(model.height, model.width, 2)
    outside = np.asarray(~(np.abs(tangents) <= MAX_TANGENT).all(axis=-1))
    tangents = np.where(outside[..., None], 0, tangents)
    reach = np.abs(tangents).reshape(-1, 2).max(axis=0) * 1.01
    focal = float(np.sqrt(model.K[0, 0] * model.K[1, 1]))
    width, height = (int(np.ceil(2 * focal * r / 16)) * 16 for r in reach)
    pixels = tangents * focal + np.array([(width - 1) / 2, (height - 1) / 2])
    fovy = float(np.rad2deg(2 * np.arctan(height / 2 / focal)))
    return _Lens(width, height, fovy, pixels[..., 0].astype(np.float32), pixels[..., 1].astype(np.float32), outside)


def _gl_error(error: Exception) -> MissingDependencyError:
    if isinstance(error, ImportError) and error.name == "mujoco":
        return MissingDependencyError("the simulator needs MuJoCo: pip install 'occupancy-nn-ros[sim]'")
    library = {"egl": "libegl1", "osmesa": "libosmesa6", "glfw": "libglfw3"}.get(
        os.environ.get("MUJOCO_GL", ""), "libegl1"
    )
    return MissingDependencyError(f"the simulator cannot open OpenGL ({error}): apt install {library}")


def _texture_files(world: World, rng: np.random.Generator) -> dict[str, bytes]:
    files = {}
    for index in range(TEXTURES):
        texture = make_texture(rng, world.texture_family)
        files[f"{index}.png"] = cv2.imencode(".png", texture[..., ::-1])[1].tobytes()
    return files


def _model_xml(world: World, rng: np.random.Generator) -> str:
    assets, geoms, movers = [], [], []
    mirrored = floor_reflectance(world)
    for index in range(TEXTURES):
        shine = f"specular='{rng.uniform(0, 0.4):.2f}' shininess='{rng.uniform(0, 0.6):.2f}'"
        repeat = rng.uniform(0.4, 1.6)
        assets.append(
            f"<texture name='c{index}' type='cube' file='{index}.png'/>"
            f"<texture name='p{index}' type='2d' file='{index}.png'/>"
        )
        assets.append(f"<material name='c{index}' texture='c{index}' {shine}/>")
        assets.append(
            f"<material name='p{index}' texture='p{index}' texuniform='true' "
            f"texrepeat='{repeat:.2f} {repeat:.2f}' reflectance='{mirrored:.3f}' {shine}/>"
        )
    assets.append(mesh_assets(world))
    geoms.append(f"<geom type='plane' size='60 60 1' material='p{world.ground_texture}'/>")
    # Geometry ids must follow the order of the solids, so movers come as bodies after all that stands still.
    order = sorted(range(len(world.solids)), key=lambda n: world.solids[n].mover)
    if order != list(range(len(order))):
        raise SimulationError("solids of movers must come last, in the order of the movers")
    geoms += [_geom_xml(solid, rng) for solid in world.solids if solid.mover < 0]
    for index in range(len(world.movers)):
        parts = "".join(_geom_xml(solid, rng) for solid in world.solids if solid.mover == index)
        movers.append(f"<body mocap='true'>{parts}</body>")
    return (
        "<mujoco><option><flag contact='disable'/></option><visual><map znear='0.003' zfar='12'/>"
        f"<headlight ambient='{grey(rng, 0.25, 0.5)}' diffuse='{grey(rng, 0.0, 0.35)}' specular='0 0 0'/>"
        "<quality shadowsize='2048'/><global offwidth='2048' offheight='2048'/></visual>"
        f"<statistic extent='10' center='0 0 1'/><asset><texture type='skybox' builtin='gradient' "
        f"rgb1='{grey(rng, 0.6, 1)}' rgb2='{grey(rng, 0.3, 0.8)}' width='64' height='64'/>{''.join(assets)}</asset>"
        f"<worldbody>{lights_xml(world, rng)}"
        f"<camera pos='0 0 1'/>{''.join(geoms)}{''.join(movers)}</worldbody></mujoco>"
    )


def _tiles(solid: Solid) -> list[tuple[FloatArray, FloatArray]]:
    """Offsets (before yaw) and half sizes of the pieces that show a solid.

    A texture is stretched once over each face, so long boxes are shown as rows of shorter ones.
    """
    half = np.asarray(solid.half, dtype=np.float64)
    if solid.shape != "box":
        return [(np.zeros(3), half)]
    counts = np.maximum(1, np.round(half / TILE_HALF_M)).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(n) for n in counts), indexing="ij"), axis=-1).reshape(-1, 3)
    return [((2 * step + 1 - counts) * half / counts, half / counts) for step in steps]


def _geom_count(solid: Solid) -> int:
    return part_count(solid) if solid.shape == "mesh" else len(_tiles(solid))


def _geom_xml(solid: Solid, rng: np.random.Generator) -> str:
    tint = 1.0 - rng.uniform(0, 0.35, 3) * rng.uniform(0, 1)
    if solid.shape == "mesh":
        return mesh_geoms(solid)
    turn = Rotation.from_euler("ZY", [solid.yaw, solid.pitch])
    x, y, z, w = turn.as_quat()
    quat = (w, x, y, z)
    parts = ""
    for offset, half in _tiles(solid):
        size = {"box": half, "cylinder": half[1:], "sphere": half[:1]}[solid.shape]
        center = np.asarray(solid.center) + turn.apply(offset)
        parts += (
            f"<geom type='{solid.shape}' pos='{numbers(center)}' size='{numbers(size)}' quat='{numbers(quat)}' "
            f"material='c{solid.texture}' rgba='{numbers(tint)} 1' contype='0' conaffinity='0'/>"
        )
    return parts
