# SPDX-License-Identifier: Apache-2.0
"""What the doctor sees when it looks at keyframes as the mapper does: decoded, and judged whether they can be what they seem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from occupancy_nn_ros.doctor.findings import Finding, warning
from occupancy_nn_ros.doctor.network_depth import NetworkDepth
from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.runtime.decoding import OWN_ONLY, FurtherDecoders, decode_keyframe
from occupancy_nn_ros.runtime.plausibility import Plausibility
from occupancy_nn_ros.runtime.raw_keyframe import RawKeyframe
from occupancy_nn_ros.values import Keyframe, PosedCloud

MOST_LOOKS = 60
"""Keyframes that are decoded: enough for motion to tell depth from what is none."""

ADVICE = {
    "picture shows nothing": "look at it: is the lens covered, the light off, the stream lost? The map is made without it",
    "picture is in part lost": "look at its stream: packets get lost on the way. The map is made without it",
    "picture is frozen": "restart its driver: it sends old pictures with new stamps. The map is made without it",
    "picture is mirrored or turned over": "compare the mount in TF with the picture, and the driver's flips. The map is made without it",
    "depth is not in metres": "set cameras.{name}.depth_unit_m, or name the topic that holds depth. The map is made without it",
    "depth ends at a limit": "publish NaN, infinity or 0 where nothing is measured. The map is begun anew without these pixels",
    "depth lies below the floor": "set cameras.{name}.depth_unit_m. The map is made without it until motion has shown it to be right",
    "depth contradicts other sensors": "name the topic that holds depth, or mend the transforms. The map is made without it",
    "depth is along the rays": "publish depth along the optical axis. The map is made without it",
    "depth is of another camera": "name the camera_info of the camera that it is registered to. The map is made without it",
    "depth is mirrored or turned over": "have its driver send it as its camera_info is, without a flip. The map is made without it",
    "camera is not in its own frame": "set cameras.{name}.frame_id to its optical frame. The map is made without it",
    "cloud is not in metres": "publish metres. The map is made without it",
    "cloud is not in its sensor's frame": "name the sensor's own cloud. The map is made without it",
    "cloud is turned over": "compare its frame in TF with how it is mounted. The map is made without it",
    "mask cannot be used": "set cameras.{name}.mask to a PNG of the size of its pictures: occupancy-nn mask BAG makes one",
    "frame does not decode": "publish what can be decoded",
}


@dataclass
class Looks:
    """Keyframes looked at, and what was wrong with their frames.

    Attributes:
        keyframes: looked at.
        usable: of these, how many a map update could be made of.
        seen: frames of each sensor that were looked at.
        refused: frames of each sensor that were not usable, by reason.
        words: the latest message for each sensor and reason.
        empty: frames of each depth camera or LiDAR in which nothing was measured.
        further: reads messages that this package's own decoders do not know.
        network: sees depth in pictures, None where it is not asked.
    """

    further: FurtherDecoders = OWN_ONLY
    network: NetworkDepth | None = None
    keyframes: int = 0
    usable: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    refused: dict[str, Counter[str]] = field(default_factory=dict)
    words: dict[tuple[str, str], str] = field(default_factory=dict)
    empty: Counter[str] = field(default_factory=Counter)
    _plausibility: Plausibility = field(default_factory=Plausibility)

    def take(self, raw: RawKeyframe, map_frame: str, min_cameras: int) -> None:
        """Look at a keyframe, unless enough were looked at."""
        if self.keyframes >= MOST_LOOKS:
            return
        self.keyframes += 1
        self.seen.update(frame.sensor.name for frame in raw.frames)
        judge = partial(self._plausibility.check, raw.T_map_base, map_frame)
        keyframe, bad = decode_keyframe(raw, min_cameras, judge, self.further)
        self.usable += keyframe is not None
        has_depth = any(frame.sensor.kind == "depth" for frame in raw.frames)  # which may have been refused
        if keyframe is not None:
            self._count_empty(keyframe)
        if keyframe is not None and has_depth and self.network is not None:
            self._plausibility.take_predicted(self.network.see(keyframe))
        for frame, error in bad:
            reason = error.reason if isinstance(error, ImplausibleError) else "frame does not decode"
            self.refused.setdefault(frame.sensor.name, Counter())[reason] += 1
            self.words[frame.sensor.name, reason] = str(error)

    def hear(self, witnesses: Iterable[PosedCloud]) -> None:
        """Compare depth cameras with what other sensors, that no map is made with, saw at the same time."""
        if self.keyframes < MOST_LOOKS:
            for look in witnesses:
                self._plausibility.take_witness(look)

    @property
    def cause(self) -> str:
        """What most of the frames that were not usable had in common, worded for people; empty if all were usable."""
        counts = {(name, reason): n for name, reasons in self.refused.items() for reason, n in reasons.items()}
        if not counts:
            return ""
        name, reason = max(counts, key=lambda key: counts[key])
        return f"{name}: {self.words[name, reason]}"

    @property
    def tilt(self) -> str:
        """How the robot leans in its map wherever it is, worded for people; empty if it stands upright."""
        return self._plausibility.doubts().get("tilt", "")

    def findings(self) -> list[Finding]:
        """One for each sensor and reason for which frames were not usable, and for each sensor that often measures nothing."""
        refused = [
            warning(name, f"{count} of {self.seen[name]} frames are not usable: {self.words[name, reason]}", _advice(name, reason))
            for name, reasons in self.refused.items()
            for reason, count in reasons.items()
        ]  # fmt: skip
        advice = "look at it: is it covered, out of range, in sunlight? They change nothing in the map"
        ends = [
            warning(name, text, "publish NaN or infinity there (REP 117, 118): free space before it is not cleared")
            for name, text in self._plausibility.range_ends.items()
            if not name.startswith("/")
        ]
        turns = [
            warning(kind.removesuffix(": turns"), text, "compare odometry with the robot: is it this one's, and alive?")
            for kind, text in self._plausibility.doubts().items()
            if kind.endswith(": turns")
        ]
        return (
            refused
            + ends
            + turns
            + [
                warning(name, f"{count} of {self.seen[name]} frames hold no distance at all", advice)
                for name, count in self.empty.items()
                if count > self.seen[name] / 2
            ]
        )

    def _count_empty(self, keyframe: Keyframe) -> None:
        for depth in keyframe.depths:
            self.empty[depth.camera] += not (np.asarray(depth.depth_m) > 0).any()
        for cloud in keyframe.clouds:
            self.empty[cloud.sensor] += not cloud.points_m.any()


def _advice(name: str, reason: str) -> str:
    return ADVICE[reason].format(name=name)
