# SPDX-License-Identifier: Apache-2.0
"""Keyframes in, calibrated predictions on the map's lattice out. The one place that prepares images for the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from occupancy_nn_ros.compute.devices import choose_device
from occupancy_nn_ros.compute.threads import parts_worth, run_each, torch_threads, use_threads
from occupancy_nn_ros.config import NetworkConfig
from occupancy_nn_ros.geometry.cameras import Rectifier, canvas_size
from occupancy_nn_ros.network.checkpoint import Checkpoint, find_model, load_checkpoint
from occupancy_nn_ros.network.depth import sure_depth
from occupancy_nn_ros.network.extraction import centers, extract, refinements
from occupancy_nn_ros.network.lifting import LEAST_PORTION, cumulative
from occupancy_nn_ros.network.masking import hidden_cells, hide_masked, without_masked
from occupancy_nn_ros.network.matching import FeatureMaps
from occupancy_nn_ros.network.model import ModelConfig, Scene
from occupancy_nn_ros.network.precision import has_bfloat16
from occupancy_nn_ros.network.views import Views, choose_sources, normalize_images
from occupancy_nn_ros.runtime.depth_images import depth_images
from occupancy_nn_ros.runtime.evidence import evidence_weight, within_range
from occupancy_nn_ros.runtime.keyframe_checks import check_keyframe
from occupancy_nn_ros.runtime.past_keyframes import Looks, PastKeyframe, PastKeyframes, Queue
from occupancy_nn_ros.values import CameraModel, Keyframe, LatticeWindow, PosedImage, Prediction

CANVAS_MULTIPLE = 32

Place = Callable[[Keyframe], Keyframe]
"""Corrects the poses of a keyframe's images, and of those that are remembered; its images stay as they are."""

RectifierKey = tuple[CameraModel, tuple[int, int]]
"""A camera, and width and height of its rectified pictures."""


class Predictor:
    """Runs an occupancy network on keyframes and remembers past keyframes for matching.

    Not thread-safe: one worker owns it.
    """

    def __init__(self, checkpoint: Checkpoint, config: NetworkConfig | None = None) -> None:
        """Take a loaded checkpoint to the configured device."""
        self.config = config or NetworkConfig()
        self.device = choose_device(self.config.device)
        use_threads(self.config.threads)
        wanted = self.config.precision
        self._short = self.device.type == "cpu" and (has_bfloat16() if wanted == "auto" else wanted == "bfloat16")
        self.network = checkpoint.network.to(self.device).eval()
        self.calibration = checkpoint.calibration
        self._past = PastKeyframes(self.config.past_keyframes)
        self._seen = Queue[tuple[Keyframe, list[Looks]]](self.config.places_until_again)
        self._rectifiers: dict[RectifierKey, Rectifier] = {}
        self._canvas: tuple[int, int] = (0, 0)
        self._canvas_of: dict[str, tuple[int, int]] = {}

    @classmethod
    def load(cls, name_or_path: str, config: NetworkConfig | None = None) -> Predictor:
        """Load a model by its name under ``models/`` or by path.

        Raises:
            CheckpointError: missing, corrupt or unfitting model file.
            ConfigError: the configured device does not exist.
        """
        return cls(load_checkpoint(find_model(name_or_path)), config)

    @property
    def model_config(self) -> ModelConfig:
        """The network's shape."""
        return self.network.config

    def reset(self) -> None:
        """Forget past keyframes, as after a jump in time or pose."""
        self._past.forget()
        self._seen.clear()

    def move_past(self, poses: Mapping[int, np.ndarray]) -> None:
        """Give past keyframes better poses: T_map_cam (V, 4, 4) of all their cameras, by stamp in nanoseconds."""
        self._past.move(poses)

    def predict(self, keyframe: Keyframe, window: LatticeWindow) -> Prediction:
        """Occupancy of the window's voxels within the network's range.

        Args:
            keyframe: at least one image; any number of cameras of any model.
            window: the map's window; the answer covers the part of it within range.

        Returns:
            Prediction on a sub-window of ``window`` (possibly of zero voxels).

        Raises:
            CalibrationError: intrinsics that cannot be used, or that do not fit the image.
            TransformError: a pose that is no rigid transform.
            ValueError: no images, images that are not uint8 RGB, or a stamp that is no integer.
        """
        return self.place_and_predict(keyframe, window, None)[1]

    @torch.inference_mode()
    def place_and_predict(
        self, keyframe: Keyframe, window: LatticeWindow, place: Place | None
    ) -> tuple[Keyframe, Prediction]:
        """The same with poses that ``place`` corrects, which may take as long as it takes to encode the images.

        Returns:
            The keyframe as corrected, and the prediction for it.
        """
        with torch_threads(1):  # work is split by cameras and points instead
            keyframe, scene, depths_m = self._observe(keyframe, place)
            return keyframe, self._answer_all(keyframe, scene, depths_m, window)

    @torch.inference_mode()
    def look_again(self) -> Keyframe | None:
        """Depth of an earlier keyframe now that later ones are known too: matched with places on both sides, under better poses.

        Returns:
            The keyframe that is due, as depth images where the network is sure; None if none is. Each is looked at again once,
            ``network.look_again_after`` places later.
        """
        due = self._seen.due()
        past = None if due is None else self._past.of(due[0].stamp_ns)
        if due is None or past is None:
            return None
        keyframe = due[0].with_images_at(past.T_map_cam)
        lanes = self._lanes(len(keyframe.images))
        looks = [look._replace(match=past.match[lane]) for look, lane in zip(due[1], lanes, strict=True)]
        with torch_threads(1):
            views, _, _, depths_m = self._measure(keyframe, looks)
        return Keyframe(
            keyframe.stamp_ns, keyframe.T_map_base, depths=depth_images(keyframe, views, depths_m.cpu().numpy())
        )

    def _answer_all(
        self, keyframe: Keyframe, scene: Scene, depths_m: Tensor | None, window: LatticeWindow
    ) -> Prediction:
        origin = _origin(keyframe)
        part = within_range(window, keyframe.T_map_base, self.network.config)
        levels = refinements(part.voxel_size_m, self.config.coarse_m)
        logits, visible = extract(partial(self.query, scene), part, origin, levels, self.device)
        distance_m = centers(part, origin, self.device).norm(dim=-1)
        return Prediction(
            window=part,
            logit=logits[..., 0],
            weight=evidence_weight(visible, distance_m),
            class_logits=logits[..., 1:].permute(3, 0, 1, 2),
            visible=visible,
            depths=() if depths_m is None else depth_images(keyframe, scene.views, depths_m.cpu().numpy()),
            prior_log_odds=self.calibration.prior_log_odds,
        )

    @torch.inference_mode()
    def observe(self, keyframe: Keyframe) -> tuple[Scene, np.ndarray]:
        """Encode a keyframe's images, match them and lift them into space.

        Returns:
            The scene, ready for :meth:`query`, and the map position (3,) float64 of its coordinate origin.
        """
        return self._observe(keyframe, None)[1], _origin(keyframe)

    def _observe(self, keyframe: Keyframe, place: Place | None) -> tuple[Keyframe, Scene, Tensor | None]:
        """The keyframe as placed, what the network makes of it, and depths (V, h, w) that it is sure of, None if never."""
        if not keyframe.images:
            raise ValueError("keyframe has no images, expected at least one")
        check_keyframe(keyframe)
        self._choose_canvas(keyframe.images)
        keyframe, looks = self._look_and_place(keyframe, place)
        scene, depths_m = self._understand(keyframe, looks)
        match = [view for look in looks for view in look.match]
        T_map_cam = np.stack([image.T_map_cam for image in keyframe.images])
        entry = PastKeyframe(match, scene.views.K, T_map_cam, keyframe.T_map_base, keyframe.stamp_ns)
        if self._past.keep(entry):
            self._seen.add((_smaller(keyframe, looks), [look._replace(match=[]) for look in looks]))
        return keyframe, scene, depths_m

    def _understand(self, keyframe: Keyframe, looks: list[Looks]) -> tuple[Scene, Tensor | None]:
        """What the network makes of the looks of a keyframe's images, and depths as of :meth:`_measure`, None if never sure."""
        views, depth_logits, nearer, depths_m = self._measure(keyframe, looks)
        maps = FeatureMaps(*(torch.cat(part) for part in zip(*(look.maps for look in looks), strict=True)))
        with self._precision():
            scene = self.network.lift(views, maps, depth_logits, torch.zeros(3, device=self.device), nearer)
        return scene, None if self.config.sure_depth == 1 else depths_m

    def _measure(self, keyframe: Keyframe, looks: list[Looks]) -> tuple[Views, tuple[Tensor, ...], Tensor, Tensor]:
        """Match the looks of a keyframe's images with each other and with the past.

        Returns:
            The V images as views, depth logits and their cumulative distribution as in :class:`Scene`, and depths (V, h, w) where the
            network is sure enough, 0 elsewhere.
        """
        origin, count = _origin(keyframe), len(keyframe.images)
        lanes = self._lanes(count)
        images, K = (torch.cat([getattr(look, name) for look in looks]) for name in ("images", "K"))
        match = [view for look in looks for view in look.match]
        T_map_cam = np.stack([image.T_map_cam for image in keyframe.images])
        past = self._past.beside(keyframe.stamp_ns, match[0].features.shape)
        all_match = [*match, *chain.from_iterable(p.match for p in past)]
        all_K = torch.cat([K, *(p.K for p in past)])
        T_world_cam = self._relative(np.concatenate([T_map_cam, *(p.T_map_cam for p in past)]), origin)
        blank = images.new_zeros(0, 3, images.shape[1], images.shape[2], dtype=torch.float32)
        index = torch.arange(count, device=self.device)
        sources = choose_sources(T_world_cam[:count], T_world_cam, self.config.sources, index)
        everyone = Views(blank, all_K, T_world_cam)

        def measure(number: int) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
            lane, maps, hidden = lanes[number], looks[number].maps, looks[number].hidden
            with self._precision():
                logits = self.network.depth(maps, everyone, all_match, sources[lane], lane.start)
            nearer = hide_masked(cumulative(logits[-1]), hidden)
            return logits, nearer, self._sure_depth(logits[-1], nearer)

        levels, cumulated, sure = zip(*run_each(measure, range(len(lanes))), strict=True)
        depth_logits = tuple(torch.cat(level) for level in zip(*levels, strict=True))
        views = Views(images.permute(0, 3, 1, 2), K, T_world_cam[:count])
        return views, depth_logits, torch.cat(cumulated), torch.cat(sure)

    def _look_and_place(self, keyframe: Keyframe, place: Place | None) -> tuple[Keyframe, list[Looks]]:
        """Images become looks without knowing where they are: that is corrected beside."""
        lanes = self._lanes(len(keyframe.images))
        tasks: list[Callable[[], Any]] = [partial(self._look, keyframe.images[lane]) for lane in lanes]
        if place is None:
            return keyframe, run_each(_call, tasks)
        tasks.insert(0, partial(place, keyframe))
        placed, *looks = run_each(_call, tasks)
        return placed, looks

    @torch.inference_mode()
    def query(self, scene: Scene, points: Tensor, edge_m: float) -> tuple[Tensor, Tensor]:
        """Calibrated log-odds, class logits (P, 1 + C) and visibility (P,) at points (P, 3) relative to the origin."""
        answers = run_each(
            lambda part: self.network.query(scene, part, torch.full_like(part[:, 0], edge_m)), self._portions(points)
        )
        logits, visible = (torch.cat(parts) for parts in zip(*answers, strict=True))
        logits = logits.float()
        logits[:, 0] = self.calibration.log_odds(logits[:, 0], visible)
        return logits, visible

    def _portions(self, points: Tensor) -> tuple[Tensor, ...]:
        """Points in as many parts as are asked about side by side."""
        return points.chunk(parts_worth(len(points), LEAST_PORTION) if self.device.type == "cpu" else 1)

    def _sure_depth(self, logits: Tensor, nearer: Tensor) -> Tensor:
        """Depths (V, h, w) that are sure enough; none are looked for where none would be."""
        if self.config.sure_depth == 1:
            return nearer.new_zeros(0)
        return sure_depth(logits, nearer, self.network.bins[-1], self.config.sure_depth)

    def _lanes(self, count: int) -> list[slice]:
        """Which of so many views are computed together: on a CPU each by itself, side by side, on a GPU all."""
        if self.device.type == "cpu":
            return [slice(n, n + 1) for n in range(count)]
        return [slice(0, count)]

    def _look(self, images: tuple[PosedImage, ...]) -> Looks:
        """Prepare and encode images."""
        rectifiers = [self._rectifier(image.model) for image in images]
        rectified = [rectify(image.image) for rectify, image in zip(rectifiers, images, strict=True)]
        pixels = torch.from_numpy(np.stack([r.image for r in rectified])).to(self.device)
        K = torch.from_numpy(np.stack([r.K for r in rectified])).float().to(self.device)
        normalized = normalize_images(pixels)
        with self._precision():
            maps = FeatureMaps(*(part.float() for part in self.network.encode(normalized)))
        hidden = [hidden_cells(rectifier, self.device) for rectifier in rectifiers]
        return Looks(pixels, K, maps, without_masked(self.network.matchable(normalized, maps), hidden), hidden)

    def _precision(self) -> torch.autocast:
        """Within it, convolutions are computed in bfloat16 if they are to be."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self._short)

    def _choose_canvas(self, images: tuple[PosedImage, ...]) -> None:
        """One size for all cameras, by the first; kept while any camera stays as it was, since only equal sizes match."""
        sizes = {image.camera: (image.model.width, image.model.height) for image in images}
        if not any(self._canvas_of.get(camera) == size for camera, size in sizes.items()):
            area = self.config.canvas_pixels or self.network.config.canvas_pixels
            self._canvas, self._canvas_of = canvas_size(images[0].model, area, CANVAS_MULTIPLE), {}
        self._canvas_of.update(sizes)

    def _rectifier(self, model: CameraModel) -> Rectifier:
        """The rectifier of one camera model; models are few, so they are kept."""
        key = (model, self._canvas)
        if key not in self._rectifiers:
            if len(self._rectifiers) > 64:  # a camera that keeps changing its zoom must not fill the memory
                self._rectifiers.clear()
            self._rectifiers[key] = Rectifier(model, *self._canvas)
        return self._rectifiers[key]

    def _relative(self, T_map_cam: np.ndarray, origin: np.ndarray) -> Tensor:
        """Poses with the origin subtracted in float64, before they become float32."""
        shifted = T_map_cam.copy()
        shifted[:, :3, 3] -= origin
        return torch.from_numpy(shifted).float().to(self.device)


def _smaller(keyframe: Keyframe, looks: list[Looks]) -> Keyframe:
    """The keyframe's images as they were rectified, which take less memory, and nothing else of it."""
    rectified = [image.numpy() for look in looks for image in look.images.cpu()]
    images = tuple(replace(image, image=small) for image, small in zip(keyframe.images, rectified, strict=True))
    return Keyframe(keyframe.stamp_ns, keyframe.T_map_base, images=images)


def _call(task: Callable[[], Any]) -> Any:
    return task()


def _origin(keyframe: Keyframe) -> np.ndarray:
    """Where the network's coordinates begin, (3,) float64 in the map frame."""
    return np.asarray(keyframe.T_map_base[:3, 3], dtype=np.float64)
