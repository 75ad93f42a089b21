# SPDX-License-Identifier: Apache-2.0
"""Depth of every picture of a recording as the network matches it with the keyframes before and after it.

The live predictor knows the past alone. A recording is known whole: what is approached was seen from further away before, and
will be seen from nearby later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from occupancy_nn_ros.alignment.pose_alignment import PoseAlignment
from occupancy_nn_ros.compute.threads import run_each, torch_threads, use_threads
from occupancy_nn_ros.config import NetworkConfig
from occupancy_nn_ros.geometry.cameras import Rectifier, canvas_size
from occupancy_nn_ros.network.depth import sure_depth
from occupancy_nn_ros.network.lifting import cumulative
from occupancy_nn_ros.network.masking import HiddenCells, hidden_cells, without_masked
from occupancy_nn_ros.network.matching import FeatureMaps, Matchable
from occupancy_nn_ros.network.model import OccupancyNetwork
from occupancy_nn_ros.network.views import Views, choose_sources, normalize_images
from occupancy_nn_ros.runtime.depth_images import depth_models
from occupancy_nn_ros.runtime.past_keyframes import is_elsewhere
from occupancy_nn_ros.runtime.predictor import CANVAS_MULTIPLE
from occupancy_nn_ros.values import CameraModel, FloatArray, Keyframe, PosedDepth, PosedImage

AROUND = 5
"""Keyframes from other places, before and after, whose pictures one is matched with."""

MOST_WAITING = 24
"""A robot that stands still makes keyframes, but no new places: so many wait for one."""

LEAST_SURE = 0.6
"""Probability of the peak of a depth distribution. Live it is 0.8: here other views have to agree besides."""


@dataclass(frozen=True)
class Look:
    """What the cameras see at a keyframe.

    Attributes:
        keyframe: with pictures whose poses are corrected.
        depths: an image for each picture, 0 where the network is not sure.
    """

    keyframe: Keyframe
    depths: tuple[PosedDepth, ...]


@dataclass
class _Seen:
    """A keyframe that waits for those after it, or serves those around it."""

    keyframe: Keyframe
    K: torch.Tensor  # (V, 3, 3)
    width: int
    maps: FeatureMaps
    match: list[Matchable]
    hidden: list[HiddenCells | None]  # by the cameras' masks
    is_place: bool
    """Whether it is far enough from the place before it to be matched with."""


class RecordingSweep:
    """Goes once through the keyframes of a recording, holding a few of them at a time."""

    def __init__(self, network: OccupancyNetwork, config: NetworkConfig) -> None:
        """Take the network to run, on the device where it is."""
        self.network, self.config = network.eval(), config
        self.device = next(network.parameters()).device
        self._alignment = PoseAlignment() if config.align_poses else None
        self._rectifiers: dict[CameraModel, Rectifier] = {}
        self._canvas: tuple[int, int] | None = None
        self._last_place: FloatArray | None = None
        use_threads(config.threads)

    def looks(self, keyframes: Iterable[Keyframe]) -> Iterator[Look]:
        """A look for each keyframe, in their order, each after those around it have come.

        Raises:
            CalibrationError: intrinsics that cannot be used, or that do not fit their picture.
        """
        behind: deque[_Seen] = deque(maxlen=AROUND)
        waiting: deque[_Seen] = deque()
        for keyframe in keyframes:
            waiting.append(self._see(keyframe))
            while sum(item.is_place for item in waiting) > AROUND or len(waiting) > MOST_WAITING:
                yield self._finish(behind, waiting)
        while waiting:
            yield self._finish(behind, waiting)

    def _finish(self, behind: deque[_Seen], waiting: deque[_Seen]) -> Look:
        """The look of the first that waits."""
        item = waiting.popleft()
        look = self._look(item, [*behind, *(other for other in waiting if other.is_place)])
        if item.is_place:
            behind.append(item)
        return look

    @torch.inference_mode()
    def _see(self, keyframe: Keyframe) -> _Seen:
        """Encode a keyframe, and correct its pose and those of the ones before it."""
        if self._alignment is not None:
            keyframe = self._alignment.align(keyframe)
        with torch_threads(1):
            looks = run_each(self._encode, keyframe.images)
        rectifiers = [self._rectifier(image.model) for image in keyframe.images]
        K = torch.from_numpy(np.stack([rectifier.K for rectifier in rectifiers])).float().to(self.device)
        maps = FeatureMaps(*(torch.cat(part) for part in zip(*(maps for maps, _ in looks), strict=True)))
        hidden = [hidden_cells(rectifier, self.device) for rectifier in rectifiers]
        match = without_masked([match for _, match in looks], hidden)
        is_place = self._last_place is None or is_elsewhere(keyframe.T_map_base, self._last_place)
        if is_place:
            self._last_place = keyframe.T_map_base
        width = 0 if self._canvas is None else self._canvas[0]
        return _Seen(keyframe, K, width, maps, match, hidden, is_place)

    def _encode(self, image: PosedImage) -> tuple[FeatureMaps, Matchable]:
        rectified = self._rectifier(image.model)(image.image)
        pixels = normalize_images(torch.from_numpy(rectified.image[None]).to(self.device))
        maps = self.network.encode(pixels)
        return maps, self.network.matchable(pixels, maps)[0]

    @torch.inference_mode()
    def _look(self, item: _Seen, others: list[_Seen]) -> Look:
        """Depth of the pictures of one keyframe, matched with each other and with those of the places around."""
        everyone = [self._corrected(member) for member in (item, *others)]
        origin = everyone[0].T_map_base[:3, 3]
        poses = np.stack([image.T_map_cam for keyframe in everyone for image in keyframe.images])
        poses[:, :3, 3] -= origin
        T_world_cam = torch.from_numpy(poses).float().to(self.device)
        K = torch.cat([member.K for member in (item, *others)])
        match = [view for member in (item, *others) for view in member.match]
        count = len(item.match)
        index_of = torch.arange(count, device=self.device)
        sources = choose_sources(T_world_cam[:count], T_world_cam, self.config.sources, index_of)
        views = Views(K.new_zeros(0, 3, 1, 1), K, T_world_cam)

        def measure(view: int) -> np.ndarray:
            maps = FeatureMaps(*(part[view : view + 1] for part in item.maps))
            logits = self.network.depth(maps, views, match, sources[view : view + 1], view)[-1]
            depth_m = sure_depth(logits, cumulative(logits), self.network.bins[-1], LEAST_SURE)[0]
            hidden = item.hidden[view]
            return np.asarray((depth_m if hidden is None else depth_m.masked_fill(hidden.hidden, 0.0)).cpu())

        with torch_threads(1):
            depths_m = run_each(measure, range(count))
        models = depth_models(item.K.cpu().numpy(), item.width, depths_m[0].shape)
        found = zip(everyone[0].images, depths_m, models, strict=True)
        return Look(everyone[0], tuple(PosedDepth(i.camera, i.stamp_ns, d, m, i.T_map_cam) for i, d, m in found))

    def _corrected(self, item: _Seen) -> Keyframe:
        """The keyframe with the poses that the latest corrections give its pictures."""
        better = {} if self._alignment is None else self._alignment.poses()
        poses = better.get(item.keyframe.stamp_ns)
        if poses is not None and len(poses) == len(item.keyframe.images):
            item.keyframe = item.keyframe.with_images_at(poses)
        return item.keyframe

    def _rectifier(self, model: CameraModel) -> Rectifier:
        if self._canvas is None:
            area = self.config.canvas_pixels or self.network.config.canvas_pixels
            self._canvas = canvas_size(model, area, CANVAS_MULTIPLE)
        if model not in self._rectifiers:
            self._rectifiers[model] = Rectifier(model, *self._canvas)
        return self._rectifiers[model]
