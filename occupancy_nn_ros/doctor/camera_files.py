# SPDX-License-Identifier: Apache-2.0
"""Corrected calibration as files: intrinsics as ROS's camera_info_manager reads them, and settings of this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from occupancy_nn_ros.doctor.camera_calibration import CameraCalibration
from occupancy_nn_ros.errors import OccupancyError
from occupancy_nn_ros.values import CameraModel


def write_calibrations(found: Sequence[CameraCalibration], folder: Path) -> list[Path]:
    """Write the intrinsics of each camera, and time offsets where there are any; returns the files.

    Raises:
        OccupancyError: a file cannot be written.
    """
    files = {folder / f"{file_name(item.camera)}.yaml": camera_info(item.camera, item.corrected) for item in found}
    offsets = {
        item.camera: {"time_offset_s": round(item.fit.delay_s, 4)}
        for item in found
        if item.fit is not None and item.fit.names_delay
    }
    if offsets:
        files[folder / "settings.yaml"] = {"cameras": offsets}
    for file, content in files.items():
        try:
            file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        except OSError as error:
            raise OccupancyError(f"cannot write {file}: {error}") from None
    return list(files)


def camera_info(name: str, model: CameraModel) -> dict[str, Any]:
    """Plain values of a calibration file (camera_calibration_parsers)."""
    K = np.asarray(model.K, np.float64)
    return {
        "image_width": model.width,
        "image_height": model.height,
        "camera_name": name,
        "camera_matrix": _matrix(K),
        "distortion_model": model.distortion_model or "plumb_bob",
        "distortion_coefficients": _matrix(np.asarray(model.D, np.float64).reshape(1, -1)),
        "rectification_matrix": _matrix(np.eye(3)),
        "projection_matrix": _matrix(np.column_stack([K, np.zeros(3)])),
    }


def _matrix(values: np.ndarray) -> dict[str, Any]:
    rows, cols = values.shape
    return {"rows": rows, "cols": cols, "data": [round(float(value), 6) for value in values.ravel()]}


def file_name(camera: str) -> str:
    """A camera's name without what a file's must not have."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in camera) or "camera"
