# SPDX-License-Identifier: Apache-2.0
"""Whether a recording's pictures can tell depth: the cameras have to move, and their calibration has to be about right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from occupancy_nn_ros.doctor.camera_calibration import MatchCollector
from occupancy_nn_ros.errors import BagError
from occupancy_nn_ros.values import Keyframe, PosedDepth

LEAST_MOTION_M = 0.15
"""How far some camera must get. Depth of 3 m seen over less than this is known to 10 % at best."""

MOST_MISS_PX, LEAST_SHARE = 1.0, 1 / 3
"""Features that miss by more in the median, of pictures of 90,000 pixels, and by less than this share of it under another calibration:
that one is wrong, by some 4 degrees of a mounting. Views still agree with each other then, and agree on what is wrong. Noisy poses miss
by as much, but under any calibration."""

MOST_KEYFRAMES = 300
"""As many are looked at: calibration does not change, and matches take memory."""


def check_motion(path: Path, keyframes: Sequence[tuple[PosedDepth, ...]]) -> None:
    """Look at how far the cameras get.

    Raises:
        BagError: not far enough for depth.
    """
    places = np.array([[depth.T_map_cam[:3, 3] for depth in depths] for depths in keyframes])
    extent = float(np.linalg.norm(places.max(axis=0) - places.min(axis=0), axis=1).max())
    if extent < LEAST_MOTION_M:
        raise BagError(
            f"cameras of {path} move by {extent:.2f} m in all, expected at least {LEAST_MOTION_M:g} m: without motion pictures "
            "do not tell depth"
        )


class CalibrationCheck:
    """Follows features through keyframes on their way elsewhere, and judges the calibration by them."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._collector = MatchCollector()
        self._seen = 0

    def watch(self, keyframes: Iterable[Keyframe]) -> Iterator[Keyframe]:
        """The same keyframes."""
        for keyframe in keyframes:
            if self._seen < MOST_KEYFRAMES:
                self._seen += 1
                still = {image.camera: np.zeros(6) for image in keyframe.images}  # stamps are not in question here
                self._collector.take(keyframe, still)
            yield keyframe

    def judge(self, path: Path) -> None:
        """Say what is wrong.

        Raises:
            BagError: features miss by far where they should be, and another calibration explains them; or pictures and poses show
                different motions.
        """
        for found in self._collector.calibrations():
            if found.contradiction:
                raise BagError(
                    f"camera '{found.camera}' of {path}: {found.text()}", advice="occupancy-nn doctor BAG tells more"
                )
            fit = found.fit
            if fit is None or fit.given_px < MOST_MISS_PX or fit.best_px > LEAST_SHARE * fit.given_px:
                continue
            if found.is_wrong:
                raise BagError(
                    f"camera '{found.camera}' of {path}: {found.text()}",
                    advice="occupancy-nn calibrate-cameras writes the values that fit",
                )
