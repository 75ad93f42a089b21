# SPDX-License-Identifier: Apache-2.0
"""A keyframe on a GPU: one upload, one recorded piece of work with fixed shapes, and nothing that the host waits for.

Pixels are rectified there, past keyframes stay there, and sources are chosen there. Every voxel in range is asked about.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from occupancy_nn_ros.compute.capture import Captured, can_capture, copied
from occupancy_nn_ros.compute.devices import choose_device
from occupancy_nn_ros.config import NetworkConfig
from occupancy_nn_ros.mapping.device_depth import DeviceDepth
from occupancy_nn_ros.network.checkpoint import Checkpoint, find_model, load_checkpoint
from occupancy_nn_ros.network.depth import sure_depth
from occupancy_nn_ros.network.lifting import cumulative
from occupancy_nn_ros.network.masking import hide_masked, without_masked
from occupancy_nn_ros.network.matching import MatchMaps
from occupancy_nn_ros.network.model import Scene
from occupancy_nn_ros.network.rectification import DeviceRectifier
from occupancy_nn_ros.network.views import Views, choose_sources, normalize_images
from occupancy_nn_ros.runtime.depth_images import depth_models
from occupancy_nn_ros.runtime.device_past import DevicePast
from occupancy_nn_ros.runtime.evidence import evidence_weight, within_range
from occupancy_nn_ros.runtime.keyframe_checks import check_keyframe
from occupancy_nn_ros.runtime.past_keyframes import Queue
from occupancy_nn_ros.runtime.predictor import Place, Predictor, RectifierKey
from occupancy_nn_ros.values import CameraModel, Keyframe, LatticeWindow, PosedDepth, Prediction

logger = logging.getLogger(__name__)

MOST_LAYOUTS = 16
"""Shapes of work that are kept recorded; a rig has a few, as cameras drop out and the range holds a voxel more or less."""

Work = Callable[[Tensor], dict[str, Any]]


@dataclass(frozen=True)
class Layout:
    """What fixes every shape in the work for a keyframe.

    Attributes:
        models: of the cameras, each with the size of the rectified pictures.
        past: rows for views of earlier keyframes, whether or not they are in use.
        shape: voxels that are asked about.
        edge_m: their edge.
    """

    models: tuple[RectifierKey, ...]
    past: int
    shape: tuple[int, int, int]
    edge_m: float

    @property
    def views(self) -> int:
        """Cameras."""
        return len(self.models)

    @property
    def exact_bytes(self) -> int:
        """Of what is uploaded first: the cameras' poses in the map's frame, (V, 4, 4) float64."""
        return 128 * self.views

    @property
    def numbers(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the float32 arrays that come next: poses, past intrinsics, voxel centres by axis."""
        return (self.views + self.past, 4, 4), (self.past, 3, 3), (sum(self.shape),)


class DevicePredictor(Predictor):
    """Runs a network on a GPU."""

    def __init__(self, checkpoint: Checkpoint, config: NetworkConfig | None = None) -> None:
        super().__init__(checkpoint, config)
        for weight in self.network.parameters():
            if weight.ndim == 4:  # images come with the channels of a pixel together, and stay so
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        self._device_rectifiers: dict[RectifierKey, DeviceRectifier] = {}
        self._work: dict[Layout, Work] = {}
        self._past_views: DevicePast | None = None
        self._again = Queue[Keyframe](self.config.places_until_again)

    def reset(self) -> None:
        """Forget past keyframes, as after a jump in time or pose."""
        super().reset()
        self._again.clear()
        if self._past_views is not None:
            self._past_views.forget()

    def move_past(self, poses: Mapping[int, np.ndarray]) -> None:
        """As :meth:`Predictor.move_past`."""
        if self._past_views is not None:
            self._past_views.move(poses)

    def place_and_predict(
        self, keyframe: Keyframe, window: LatticeWindow, place: Place | None
    ) -> tuple[Keyframe, Prediction]:
        """As :meth:`Predictor.place_and_predict`; all tensors of the answer are new ones on the device."""
        keyframe = keyframe if place is None else place(keyframe)
        return keyframe, self._predict(keyframe, window)

    def look_again(self) -> Keyframe | None:
        """As :meth:`Predictor.look_again`; all work anew but for the voxels, of which it asks about one, since shapes are fixed."""
        keyframe, past = self._again.due(), self._past_views
        poses = None if keyframe is None or past is None else past.poses(keyframe.stamp_ns)
        if keyframe is None or poses is None:
            return None
        keyframe = keyframe.with_images_at(poses[: len(keyframe.images)])
        here = np.floor(keyframe.T_map_base[:3, 3]).astype(int).tolist()
        depths = self._predict(keyframe, LatticeWindow(1.0, tuple(here), (1, 1, 1)), is_new=False).depths
        return Keyframe(keyframe.stamp_ns, keyframe.T_map_base, depths=depths)

    @torch.inference_mode()
    def _predict(self, keyframe: Keyframe, window: LatticeWindow, *, is_new: bool = True) -> Prediction:
        if not keyframe.images:
            raise ValueError("keyframe has no images, expected at least one")
        check_keyframe(keyframe)
        part = within_range(window, keyframe.T_map_base, self.network.config)
        before = self._canvas
        self._choose_canvas(keyframe.images)
        if self._canvas != before:  # nothing of another size can be matched
            self._work.clear()
            self._past_views = None
        models = tuple(self._rectifier_of(image.model, image.image.shape) for image in keyframe.images)
        past = self._past_views
        layout = Layout(models, 0 if past is None else len(past.K), part.shape, part.voxel_size_m)
        answer = self._run(layout, self._pack(layout, keyframe, part))
        if is_new:
            self._keep(keyframe, layout, answer["match"])
        depths: tuple[PosedDepth, ...] = ()
        if answer["depth_m"] is not None:
            K = np.stack([self._rectifiers[key].K for key in models]).astype(np.float32)
            shown = depth_models(K, answer["width"], answer["depth_m"].shape[1:])
            depths = device_depths(keyframe, (answer["depth_m"], answer["T_map_cam"]), shown)
        given = {name: answer[name] for name in ("logit", "weight", "class_logits", "visible")}
        return Prediction(part, **given, depths=depths, prior_log_odds=self.calibration.prior_log_odds)

    def _rectifier_of(self, model: CameraModel, shape: tuple[int, ...]) -> RectifierKey:
        """Have a rectifier for a camera; returns its key, which tells all that shapes depend on."""
        rectifier = self._rectifier(model)
        rectifier.check_size(shape)
        key = (model, self._canvas)
        if key not in self._device_rectifiers:
            if len(self._device_rectifiers) > 64:
                self._device_rectifiers.clear()
                self._work.clear()
            self._device_rectifiers[key] = DeviceRectifier(rectifier, self.device)
        return key

    def _pack(self, layout: Layout, keyframe: Keyframe, part: LatticeWindow) -> Tensor:
        """Everything that the device has to know about a keyframe, as bytes in pinned memory."""
        origin = np.asarray(keyframe.T_map_base[:3, 3], dtype=np.float64)
        poses = [np.stack([image.T_map_cam for image in keyframe.images])]
        old_K = np.zeros((0, 3, 3))
        if self._past_views is not None:
            poses.append(self._past_views.beside(keyframe.stamp_ns))
            old_K = self._past_views.K
        T_world_cam = np.concatenate(poses)
        T_world_cam[:, :3, 3] -= origin
        axes = [
            (np.arange(count) + low + 0.5) * part.voxel_size_m - start
            for count, low, start in zip(part.shape, part.origin, origin, strict=True)
        ]
        numbers = np.concatenate([T_world_cam.ravel(), old_K.ravel(), *axes]).astype(np.float32)
        exact = np.stack([image.T_map_cam for image in keyframe.images]).astype(np.float64)
        images = [np.ascontiguousarray(image.image).reshape(-1) for image in keyframe.images]
        pieces = [exact.reshape(-1).view(np.uint8), numbers.view(np.uint8), *images]
        # Fresh memory each time, which torch does not give away again before the copy is done.
        pinned = torch.empty(sum(len(piece) for piece in pieces), dtype=torch.uint8, pin_memory=True)
        np.concatenate(pieces, out=pinned.numpy())
        return pinned

    def _run(self, layout: Layout, packed: Tensor) -> dict[str, Any]:
        """The work for one layout, recorded the first time if the device can."""
        if layout not in self._work:
            if len(self._work) >= MOST_LAYOUTS:
                self._work.clear()
            self._work[layout] = self._record(layout, packed)
        return self._work[layout](packed)

    def _record(self, layout: Layout, packed: Tensor) -> Work:
        def work(on_device: Tensor) -> dict[str, Any]:
            half = self.config.precision == "bfloat16"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
                return self._answer(layout, on_device)

        def upload(pinned: Tensor) -> Tensor:
            return pinned.to(self.device, non_blocking=True)

        if can_capture(self.device):
            try:
                recorded = Captured(work, [upload(packed)])
                return lambda pinned: copied(recorded(pinned))
            except RuntimeError as error:
                logger.warning("the work for a keyframe is not recorded, and takes longer so: %s", error)
        return lambda pinned: work(upload(pinned))

    def _answer(self, layout: Layout, packed: Tensor) -> dict[str, Any]:
        """From bytes to the answer; shapes follow from the layout alone, and no value is looked at."""
        (poses, old_K, axes), images = self._unpack(layout, packed)
        exact = packed[: layout.exact_bytes].view(torch.float64).view(layout.views, 4, 4)
        views = layout.views
        rectifiers = [self._device_rectifiers[key] for key in layout.models]
        K, hidden = torch.stack([r.K for r in rectifiers]), [r.hidden for r in rectifiers]
        pixels = torch.stack([rectify(image) for rectify, image in zip(rectifiers, images, strict=True)])
        normalized = normalize_images(pixels)
        maps = self.network.encode(normalized)
        match = without_masked(self.network.match_maps(normalized, maps), hidden)
        everyone = Views(normalized[:0], torch.cat([K, old_K]), poses)
        index = torch.arange(views, device=self.device)
        sources = choose_sources(poses[:views], poses, self.config.sources, index)
        logits = self.network.depth(maps, everyone, [*match, *self._old(layout)], sources)
        current = Views(pixels.permute(0, 3, 1, 2), K, poses[:views])
        nearer = hide_masked(cumulative(logits[-1]), hidden)
        scene = self.network.lift(current, maps, logits, poses.new_zeros(3), nearer)
        x, y, z = torch.split(axes, list(layout.shape))
        points = torch.stack(torch.meshgrid(x, y, z, indexing="ij"), dim=-1)
        return {**self._ask(scene, points, layout.edge_m), "depth_m": self._sure(scene), "width": pixels.shape[2], "T_map_cam": exact,
                "match": MatchMaps(*(torch.stack(parts) for parts in zip(*match, strict=True)))}  # fmt: skip

    def _ask(self, scene: Scene, points: Tensor, edge_m: float) -> dict[str, Tensor]:
        """What the network says of voxel centres (X, Y, Z, 3)."""
        shape, flat = points.shape[:3], points.reshape(-1, 3)
        edge = torch.full_like(flat[:, 0], edge_m)
        logits, visible = self.network.query(scene, flat, edge)
        logits, visible = logits.float(), visible.float()
        log_odds = self.calibration.log_odds(logits[:, 0], visible).view(shape)
        visible = visible.view(shape)
        return {"logit": log_odds, "visible": visible, "weight": evidence_weight(visible, points.norm(dim=-1)),
                "class_logits": logits[:, 1:].T.reshape(-1, *shape)}  # fmt: skip

    def _sure(self, scene: Scene) -> Tensor | None:
        """Depth (V, h, w) where the network is sure of it, None if the settings say that it never is."""
        if self.config.sure_depth == 1:
            return None
        return sure_depth(scene.depth_logits[-1], scene.nearer, self.network.bins[-1], self.config.sure_depth).float()

    def _unpack(self, layout: Layout, packed: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The arrays of numbers, and each camera's raw pixels (H, W, 3) uint8."""
        numbers, start = [], layout.exact_bytes
        for shape in layout.numbers:
            end = start + 4 * math.prod(shape)
            numbers.append(packed[start:end].view(torch.float32).view(shape))
            start = end
        images = []
        for model, _ in layout.models:
            end = start + 3 * model.width * model.height
            images.append(packed[start:end].view(model.height, model.width, 3))
            start = end
        return numbers, images

    def _old(self, layout: Layout) -> list[MatchMaps]:
        """What the past views are matched by, in the memory where it is kept."""
        if self._past_views is None:
            return []
        kept = self._past_views.maps
        return [MatchMaps(*(part[row] for part in kept)) for row in range(layout.past)]

    def _keep(self, keyframe: Keyframe, layout: Layout, match: MatchMaps) -> None:
        """Keep a keyframe for matching if the robot has moved since the last one kept; the oldest makes room."""
        slots = self.config.past_keyframes
        if slots == 0:
            return
        if self._past_views is None or self._past_views.views < layout.views:
            self._work.clear()  # it reads the memory of before
            self._past_views = DevicePast.of(match, slots)
        if self._past_views.keep(keyframe, match, [self._rectifiers[key].K for key in layout.models]):
            self._again.add(Keyframe(keyframe.stamp_ns, keyframe.T_map_base, images=keyframe.images))


def device_depths(
    keyframe: Keyframe, there: tuple[Tensor, Tensor], models: list[CameraModel]
) -> tuple[PosedDepth, ...]:
    """Depth images (V, h, w) of a keyframe's images, and their poses (V, 4, 4), which stay on the device, with their models."""
    pixels, poses = (part.unbind() for part in there)
    return tuple(
        DeviceDepth(image.camera, image.stamp_ns, depth_m, model, image.T_map_cam, pose)
        for image, depth_m, model, pose in zip(keyframe.images, pixels, models, poses, strict=True)
    )


def load_predictor(name_or_path: str, config: NetworkConfig | None = None) -> Predictor:
    """The predictor for a model by its name under ``models/`` or by path, in the way that suits the configured device.

    Raises:
        CheckpointError: missing, corrupt or unfitting model file.
        ConfigError: the configured device does not exist.
    """
    config = config or NetworkConfig()
    kind = DevicePredictor if choose_device(config.device).type == "cuda" else Predictor
    return kind(load_checkpoint(find_model(name_or_path)), config)
