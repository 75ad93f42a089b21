# SPDX-License-Identifier: Apache-2.0
"""Pictures of two bytes a channel to one, whatever number of bits their sensor fills."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.values import UInt8Array

SENSOR_BITS = (10, 12, 14, 16)
"""Machine vision and thermal cameras put so many bits into two bytes, and many leave them at the lower end."""


def to_8_bits(values: npt.NDArray[Any]) -> UInt8Array:
    """The same shape in uint8, full range to full range: that of the fewest bits that hold the brightest value."""
    brightest = int(values.max(initial=0))
    bits = next(bits for bits in SENSOR_BITS if brightest < 1 << bits)
    scaled = cv2.convertScaleAbs(values.astype(np.uint16), alpha=255 / ((1 << bits) - 1))
    return np.asarray(scaled, dtype=np.uint8).reshape(values.shape)
