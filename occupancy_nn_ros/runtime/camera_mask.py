# SPDX-License-Identifier: Apache-2.0
"""Masks of cameras: pictures that are white where a camera sees the robot itself, or dirt on its lens."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.errors import ImageError, ImplausibleError
from occupancy_nn_ros.messages.picture_headers import PictureLimits, picture_size
from occupancy_nn_ros.values import CameraModel

WHITE = 128
"""Grey level from which a pixel is masked."""

MAX_BYTES = 64 << 20


def masked(model: CameraModel, path: str) -> CameraModel:
    """Intrinsics with the mask of a file; as they are where the path is empty.

    Raises:
        ImplausibleError: the file cannot be read, is of another size, or masks everything. A camera must not be used without
            the mask that it was given.
    """
    if not path:
        return model
    try:
        return _masked(model, path)
    except ImageError as error:
        raise ImplausibleError(f"{error}; the camera is left out", reason="mask cannot be used") from None


@lru_cache(maxsize=64)
def _masked(model: CameraModel, path: str) -> CameraModel:
    mask = read_mask(Path(path).expanduser())
    if mask.shape != (model.height, model.width):
        found, expected = f"{mask.shape[1]}x{mask.shape[0]}", f"{model.width}x{model.height}"
        raise ImageError(f"mask {path} is {found}, the pictures are {expected}")
    if mask.all():
        raise ImageError(f"mask {path} is white everywhere, expected black where the camera sees the world")
    return replace(model, mask=mask)


def read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Which pixels a mask covers, (H, W).

    Raises:
        ImageError: no picture that can be read.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(f"mask {path} has {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"mask {path} cannot be read: {error.strerror}") from None
    PictureLimits().check(*picture_size(data, f"mask {path}"))
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise ImageError(f"mask {path} does not decode")
    return np.asarray(picture >= WHITE, dtype=np.bool_)
