# SPDX-License-Identifier: Apache-2.0
"""Whether a camera sees anything: pictures without texture, of a lost stream, or that stay the same while the camera moves."""

from __future__ import annotations

import cv2
import numpy as np

from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.geometry.poses import rotation_angle
from occupancy_nn_ros.values import FloatArray, PosedImage, UInt8Array

SMALL = (64, 48)
"""Pictures are compared at this size: noise averages out."""

LEAST_SPREAD = 6.0
"""Grey levels of 255 between the darkest and the brightest parts. A plain wall in plain light has more; a covered lens has not."""

LOST_ROWS, LOST_BLACK_ROWS = 1 / 3, 1 / 2
"""Share of a picture's rows, from its bottom up, that have one single colour where data was lost; black or white occurs by itself."""

FROZEN_M, FROZEN_RAD = 0.1, 0.05
"""A picture that is still the same, to the last bit, after this much motion is not a new one."""


class PictureChecks:
    """Looks at each picture of one camera in turn."""

    def __init__(self) -> None:
        """No picture was seen yet."""
        self._last: UInt8Array | None = None
        self._since = np.eye(4)

    def check(self, image: PosedImage) -> None:
        """Take the next picture.

        Raises:
            ImplausibleError: it shows nothing, is in part lost, or is an old one.
        """
        small = np.asarray(cv2.resize(image.image, SMALL, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        dark, bright = np.percentile(small.reshape(-1, 3), (2, 98), axis=0)
        spread = float((bright - dark).max())
        if spread < LEAST_SPREAD:
            color = tuple(int(v) for v in np.median(small.reshape(-1, 3), axis=0))
            raise ImplausibleError(
                f"picture shows nothing: all of it is within {spread:.0f} of 255 grey levels around RGB {color}",
                reason="picture shows nothing",
            )
        lost = _lost_share(image.image)
        if lost:
            raise ImplausibleError(f"the lower {lost:.0%} of the picture are lost", reason="picture is in part lost")
        self._check_change(small, image.T_map_cam)

    def _check_change(self, small: UInt8Array, T_map_cam: FloatArray) -> None:
        if self._last is None or not np.array_equal(small, self._last):
            self._last, self._since = small, T_map_cam
            return
        moved = float(np.linalg.norm(T_map_cam[:3, 3] - self._since[:3, 3]))
        turned = rotation_angle(self._since, T_map_cam)
        if moved > FROZEN_M or turned > FROZEN_RAD:
            raise ImplausibleError(
                f"picture stays the same while the camera moves by {moved:.2f} m and turns by {turned:.2f} rad",
                reason="picture is frozen",
            )


def _lost_share(image: UInt8Array) -> float:
    """Share of rows at the bottom that have one single colour, 0 where it is too small to tell of a loss."""
    columns = image[:, :: max(1, image.shape[1] // 80)]
    color = columns[-1, 0]
    is_flat = (columns == color).all(axis=(1, 2))
    share = float(np.argmin(is_flat[::-1]) / len(is_flat)) if not is_flat.all() else 1.0
    occurs = bool((color == 0).all() or (color == 255).all())
    return share if share > (LOST_BLACK_ROWS if occurs else LOST_ROWS) else 0.0
