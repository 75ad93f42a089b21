# SPDX-License-Identifier: Apache-2.0
"""A single-image depth network of the user's choice, run beside ours through ONNX Runtime. Needs the ``onnx`` extra.

What the model takes is read from the file: one input of shape (1, 3, H, W), one output of (1, H', W') or (1, 1, H', W'). What the file
does not say stands beside it, in ``NAME.yaml``:

| key | default | meaning |
|---|---|---|
| ``output`` | ``disparity`` | ``disparity`` (relative inverse depth), or ``depth`` (relative or metric) |
| ``mean`` ``std`` | those of ImageNet | of RGB values from 0 to 1 |
| ``size`` | [392, 294] | width and height, for models that take any; multiples of 14 suit vision transformers |
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from occupancy_nn_ros.errors import CheckpointError, ConfigError, MissingDependencyError
from occupancy_nn_ros.geometry.cameras import Rectifier
from occupancy_nn_ros.runtime.depth_scale import Kind, fit_metres, to_metres
from occupancy_nn_ros.settings import from_mapping, read_yaml
from occupancy_nn_ros.values import CameraModel, Float32Array, FloatArray, PosedDepth, PosedImage, UInt8Array

MAX_BYTES = 4 << 30
OUTPUT_SIDE = 160
"""Longer side of the depth images that are fused: finer ones cost time, and voxels are coarser."""


@dataclass(frozen=True)
class DepthModelNotes:
    """What a model's file does not say; see the module's table."""

    output: Kind = "disparity"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    size: tuple[int, ...] = (392, 294)


class DepthModel:
    """Depth images in metres from single images.

    Attributes:
        left_out: images that gave no depth, by reason.
    """

    def __init__(self, session: Any, notes: DepthModelNotes, name: str) -> None:
        """Take a session of ONNX Runtime.

        Raises:
            CheckpointError: it is no depth model.
        """
        self.left_out: Counter[str] = Counter()
        self._session, self._notes = session, notes
        self._width, self._height = _input_size(session, notes, name)
        self._rectifiers: dict[CameraModel, Rectifier] = {}

    @classmethod
    def load(cls, path: Path) -> DepthModel:
        """Read a model and the notes beside it.

        Raises:
            MissingDependencyError: ONNX Runtime is not installed.
            CheckpointError: the file is missing, damaged, or no depth model.
            ConfigError: the notes are not as expected.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError(
                f"a depth model needs ONNX Runtime ({error}): pip install 'occupancy-nn-ros[onnx]'"
            ) from None
        if not path.is_file():
            raise CheckpointError(f"no depth model at {path}")
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
        beside = path.with_suffix(".yaml")
        try:
            notes = from_mapping(DepthModelNotes, read_yaml(beside) if beside.exists() else {})
        except ConfigError as error:
            raise ConfigError(f"{beside}: {error}") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=onnxruntime.get_available_providers())
        except Exception as error:  # ONNX Runtime has a dozen kinds, all of which mean that the file cannot be used
            raise CheckpointError(f"cannot read depth model {path}: {' '.join(str(error).split())}") from None
        return cls(session, notes, str(path))

    def measure(self, image: PosedImage, known: PosedDepth) -> PosedDepth | None:
        """Depth of one image in metres, fitted to what is known of it; None, and counted, where nothing fits.

        Args:
            image: what the camera saw.
            known: depth of the same camera at the same moment, 0 where it is not known; no distortion.
        """
        rectified = self._rectifier(image.model)(image.image)
        raw = self._run(rectified.image)
        anchors = known.depth_m.astype(np.float64)
        at_anchors = _resample(raw, rectified.K, known.model)
        fit = fit_metres(at_anchors[anchors > 0], anchors[anchors > 0], self._notes.output)
        if fit is None:
            self.left_out[f"{image.camera}: the depth model fits no known depth"] += 1
            return None
        model = _output_model(rectified.K, self._width, self._height)
        mask = _resample(rectified.mask.astype(np.float32), rectified.K, model) > 0.99
        depth = np.where(mask, to_metres(_resample(raw, rectified.K, model), fit, self._notes.output), np.nan)
        return PosedDepth(image.camera, image.stamp_ns, np.nan_to_num(depth).astype(np.float32), model, image.T_map_cam)

    def _run(self, rgb: UInt8Array) -> Float32Array:
        """Raw output (H, W) for a rectified image of the model's size."""
        mean, std = (np.array(v, np.float32) for v in (self._notes.mean, self._notes.std))
        pixels = ((rgb.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
        (output, *_) = self._session.run(None, {self._session.get_inputs()[0].name: np.ascontiguousarray(pixels)})
        raw = np.asarray(output, dtype=np.float32).squeeze()
        if raw.ndim != 2:
            raise CheckpointError(f"the depth model's output is {np.shape(output)}, expected one number for each pixel")
        resized = cv2.resize(raw, (self._width, self._height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, dtype=np.float32)

    def _rectifier(self, model: CameraModel) -> Rectifier:
        if model not in self._rectifiers:
            if len(self._rectifiers) > 64:  # a camera that keeps changing its zoom must not fill the memory
                self._rectifiers.clear()
            self._rectifiers[model] = Rectifier(model, self._width, self._height)
        return self._rectifiers[model]


def _input_size(session: Any, notes: DepthModelNotes, name: str) -> tuple[int, int]:
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else None
    if shape is None or len(shape) != 4 or (shape[1] not in (3, None) and not isinstance(shape[1], str)):
        found = ", ".join(f"{item.name} {item.shape}" for item in inputs)
        raise CheckpointError(f"{name} is no depth model: its inputs are {found}, expected one of (1, 3, H, W)")
    if len(notes.size) != 2 or len(notes.mean) != 3 or len(notes.std) != 3 or not all(v > 0 for v in notes.std):
        raise ConfigError(f"notes of {name}: {notes}, expected two numbers in size and three in mean and std")
    width = shape[3] if isinstance(shape[3], int) else notes.size[0]
    height = shape[2] if isinstance(shape[2], int) else notes.size[1]
    if not (16 <= width <= 4096 and 16 <= height <= 4096):
        raise CheckpointError(f"{name} takes {width}x{height} pixels, expected 16 to 4096 each")
    return width, height


def _output_model(K: FloatArray, width: int, height: int) -> CameraModel:
    """A pinhole camera that sees the same with fewer pixels."""
    ratio = min(1.0, OUTPUT_SIDE / max(width, height))
    out = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    scaled = K.copy().astype(np.float64)
    for axis, (size, full) in enumerate(zip(out, (width, height), strict=True)):
        scaled[axis, :2] *= size / full
        scaled[axis, 2] = (K[axis, 2] + 0.5) * size / full - 0.5  # pixel centres lie at integers
    return CameraModel(out[0], out[1], scaled, "none", np.zeros(0))


def _resample(raw: Float32Array, K: FloatArray, model: CameraModel) -> FloatArray:
    """A pinhole image (H, W) with intrinsics K as another pinhole camera of the same pose sees it; NaN outside."""
    u, v = np.meshgrid(np.arange(model.width), np.arange(model.height))
    x = (u - model.K[0, 2]) / model.K[0, 0] * K[0, 0] + K[0, 2]
    y = (v - model.K[1, 2]) / model.K[1, 1] * K[1, 1] + K[1, 2]
    sampled = cv2.remap(
        raw, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
        borderValue=float("nan"),
    )  # fmt: skip
    return np.asarray(sampled, dtype=np.float64)
