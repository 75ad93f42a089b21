# SPDX-License-Identifier: Apache-2.0
"""Proposes masks for the cameras of a recording: pictures, overlays to look at, and the settings that use them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from occupancy_nn_ros.bags.reader import BagPart, BagReader
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.doctor.camera_files import file_name
from occupancy_nn_ros.doctor.still_pixels import LEAST_PICTURES, StillPixels
from occupancy_nn_ros.errors import BagError, OccupancyError
from occupancy_nn_ros.runtime.decoding import decode_keyframe
from occupancy_nn_ros.runtime.player import PlayProgress, plan_play, steps
from occupancy_nn_ros.values import UInt8Array

LITTLE_TURN_RAD = 0.8
"""A camera that turns less may see a far world that stays where it is."""

TINT = np.array([255.0, 40.0, 40.0])


@dataclass(frozen=True)
class MaskProposal:
    """What is proposed for one camera.

    Attributes:
        camera, topic: its name and its pictures' topic.
        mask: (H, W) bool, True for its own body.
        picture: (H, W, 3) uint8 mean of its pictures.
        pictures: how many were compared.
        moved_m, turned_rad: how far it moved between them.
    """

    camera: str
    topic: str
    mask: npt.NDArray[np.bool_]
    picture: UInt8Array
    pictures: int
    moved_m: float
    turned_rad: float

    @property
    def is_needed(self) -> bool:
        """Whether anything is to be masked."""
        return bool(self.mask.any())

    def text(self) -> str:
        """In one line."""
        basis = f"{self.pictures} pictures, {self.moved_m:.1f} m, {np.rad2deg(self.turned_rad):.0f} degrees"
        if self.pictures < LEAST_PICTURES:
            return f"too few pictures from different places to tell ({basis}, expected {LEAST_PICTURES} pictures)"
        doubt = (
            "; it hardly turned: what lies far ahead may be taken for its body"
            if self.turned_rad < LITTLE_TURN_RAD
            else ""
        )
        if not self.is_needed:
            return f"nothing stays while it moves, no mask is needed ({basis})"
        return f"{self.mask.mean():.1%} of the picture stays while it moves ({basis}{doubt})"

    def overlay(self) -> UInt8Array:
        """The mean picture with the mask in red, (H, W, 3)."""
        tinted = 0.45 * self.picture + 0.55 * TINT
        return np.where(self.mask[..., None], tinted, self.picture).astype(np.uint8)


def propose_masks(
    bag: Path, config: Config, report: Callable[[PlayProgress], None] | None = None, part: BagPart | None = None
) -> list[MaskProposal]:
    """Look at all pictures of a recording that were taken on the way.

    Raises:
        BagError: the bag cannot be read, or no keyframe can be made of it.
        ConfigError: a configured topic does not exist.
    """
    unmasked = {name: replace(camera, mask="") for name, camera in config.cameras.items()}
    cameras: defaultdict[str, StillPixels] = defaultdict(StillPixels)
    with BagReader(bag, part) as reader:
        plan = plan_play(reader, replace(config, cameras=unmasked, source="network"))
        for _, ready in steps(reader, plan.intake(), report):
            for raw in ready:
                keyframe, _ = decode_keyframe(raw, 0)
                for image in () if keyframe is None else keyframe.images:
                    cameras[image.camera].add(image.image, image.T_map_cam)
    if not cameras:
        raise BagError(f"no keyframe with pictures could be made of {bag}")
    topics = {sensor.name: sensor.topic for sensor in plan.sensors}
    return [_proposal(name, topics[name], pixels) for name, pixels in cameras.items()]


def _proposal(name: str, topic: str, pixels: StillPixels) -> MaskProposal:
    motion = pixels.motion
    return MaskProposal(
        name, topic, pixels.mask(), pixels.mean_picture(), pixels.pictures, motion.moved_m, motion.turned_rad
    )


def write_masks(found: Sequence[MaskProposal], folder: Path) -> tuple[list[Path], dict[str, Any]]:
    """Write ``CAMERA.png`` for cameras that need one, ``CAMERA_overlay.png`` for all, and ``settings.yaml``.

    Returns:
        The files, and the settings: all cameras, since cameras that are not named are not used.

    Raises:
        OccupancyError: a file cannot be written.
    """
    files: list[Path] = []
    cameras: dict[str, dict[str, str]] = {}
    for item in found:
        path = folder / f"{file_name(item.camera)}.png"
        cameras[item.camera] = {"image_topic": item.topic}
        if item.is_needed:
            files.append(_write(path, item.mask.astype(np.uint8) * 255))
            cameras[item.camera]["mask"] = str(path.resolve())
        overlay = path.with_name(f"{path.stem}_overlay.png")
        files.append(_write(overlay, cv2.cvtColor(item.overlay(), cv2.COLOR_RGB2BGR)))
    settings = {"cameras": cameras}
    files.append(_write(folder / "settings.yaml", yaml.safe_dump(settings, sort_keys=False).encode()))
    return files, settings


def _write(path: Path, content: Any) -> Path:
    """Write bytes, or a picture as PNG."""
    data = content if isinstance(content, bytes) else cv2.imencode(".png", content)[1].tobytes()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OccupancyError(f"cannot write {path}: {error}") from None
    return path
