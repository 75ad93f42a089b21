# SPDX-License-Identifier: Apache-2.0
"""Pixels and rays of real cameras: checks, projection, un-projection, and rectification to a pinhole.

Covers the distortion models of ``sensor_msgs/CameraInfo`` through OpenCV. Knows nothing about the network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.errors import CalibrationError
from occupancy_nn_ros.values import CameraModel, FloatArray, UInt8Array

COEFFICIENTS = {
    "none": (0,),
    "": (0,),
    "plumb_bob": (0, 4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}
"""Distortion models and how many coefficients each may have; all zeros or none means an ideal pinhole."""

LENS_NAMES = {
    "plumb_bob": "plumb_bob",
    "radtan": "plumb_bob",
    "radial_tangential": "plumb_bob",
    "brown_conrady": "plumb_bob",
    "pinhole": "plumb_bob",
    "perspective": "plumb_bob",
    "opencv": "plumb_bob",
    "rational": "rational_polynomial",
    "rational_polynomial": "rational_polynomial",
    "equidistant": "equidistant",
    "equi": "equidistant",
    "fisheye": "equidistant",
    "opencv_fisheye": "equidistant",
    "kannala_brandt": "equidistant",
    "kannala_brandt4": "equidistant",
    "kb4": "equidistant",
    "none": "none",
    "ideal": "none",
    "": "plumb_bob",
}
"""What drivers and calibration tools call the models, in lower case with underscores."""

MAX_TANGENT = 1.5
"""Rectified images end at this tangent of the angle to the axis (56 degrees): beyond, a pinhole wastes pixels."""

MASKED_GREY = 114
"""Grey level of masked pixels, which is nothing to the network: what is black seems near to it."""

MAX_MISS_PX = 1e-4
"""An undistorted pixel that does not come back to within this was no image of any ray."""


def check_camera(model: CameraModel) -> None:
    """Check that intrinsics can describe a camera.

    Raises:
        CalibrationError: size or focal length not positive, NaN, unknown or incomplete distortion, mask of another size; says
            which.
    """
    if model.width <= 0 or model.height <= 0:
        raise CalibrationError(f"image size is {model.width}x{model.height}, expected positive")
    if model.K.shape != (3, 3) or not np.isfinite(model.K).all():
        raise CalibrationError(f"K is {model.K.tolist()}, expected 3x3 finite numbers")
    if model.K[0, 0] <= 0 or model.K[1, 1] <= 0:
        focal = f"{model.K[0, 0]}, {model.K[1, 1]}"
        raise CalibrationError(f"focal lengths are {focal}, expected positive (uncalibrated camera?)")
    if model.distortion_model not in COEFFICIENTS:
        names = ", ".join(name for name in COEFFICIENTS if name)
        raise CalibrationError(f"distortion model is '{model.distortion_model}', expected one of {names}")
    if not np.isfinite(model.D).all():
        raise CalibrationError(f"D is {model.D.tolist()}, expected finite numbers")
    mask = model.mask
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != (model.height, model.width)):
        found = f"{mask.dtype} {mask.shape}"
        raise CalibrationError(f"mask of the camera is {found}, expected bool {(model.height, model.width)}")
    allowed = COEFFICIENTS[model.distortion_model]
    if model.D.any() and model.D.size not in allowed:
        raise CalibrationError(f"D has {model.D.size} coefficients, {model.distortion_model} has {allowed}")


def lens_of(name: str, coefficients: npt.ArrayLike) -> tuple[str, FloatArray]:
    """Distortion model and coefficients of a lens under the names of ROS, whatever its driver calls it.

    Zeros that only fill up the array are cut off. What is called plumb_bob or pinhole and has more coefficients than that model
    is what OpenCV takes it for, rational. A name that is not known comes back as it is, for :func:`check_camera` to refuse.
    """
    D = np.asarray(coefficients, dtype=np.float64).reshape(-1)
    model = LENS_NAMES.get(name.strip().lower().replace("-", "_").replace(" ", "_"), name)
    if model not in COEFFICIENTS or not np.isfinite(D).all():
        return model, D
    used = int(np.flatnonzero(D).max(initial=-1)) + 1
    if model in ("plumb_bob", "none") and used > max(COEFFICIENTS["plumb_bob"]):
        model = "rational_polynomial"
    elif model == "none" and used:
        model = "plumb_bob"
    if D.size in COEFFICIENTS[model]:
        return model, D
    fitting = [count for count in (0, *COEFFICIENTS[model]) if used <= count]
    return (model, np.pad(D[:used], (0, fitting[0] - used))) if fitting else (model, D)


def fit_to_image(model: CameraModel, width: int, height: int) -> CameraModel:
    """The intrinsics for an image of this size: as they are, or without a binning that the sizes do not follow.

    Raises:
        CalibrationError: they are for another size.
    """
    if (width, height) == (model.width, model.height):
        return model
    if (width, height) in sizes_of(model):
        x, y = model.binning
        return replace(model, width=width, height=height, K=np.diag([x, y, 1.0]) @ model.K, binning=(1, 1))
    raise CalibrationError(f"image is {width}x{height}, camera_info says {model.width}x{model.height}")


def sizes_of(model: CameraModel) -> tuple[tuple[int, int], ...]:
    """(width, height) of images that the intrinsics are for; two where the driver's sizes may be binned already."""
    x, y = model.binning
    return tuple(dict.fromkeys([(model.width, model.height), (model.width * x, model.height * y)]))


def resized(model: CameraModel, width: int, height: int) -> CameraModel:
    """The intrinsics of an image that was scaled to this size; pixel centres stay at integers, and masks lose nothing."""
    x, y = width / model.width, height / model.height
    to_new = np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2], [0.0, 0.0, 1.0]])
    mask = model.mask
    if mask is not None:
        mask = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0
    return replace(model, width=width, height=height, K=to_new @ model.K, mask=mask)


def project(model: CameraModel, points_cam: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Project points of the optical frame into the image.

    Args:
        model: checked intrinsics.
        points_cam: (N, 3) metres, z forward.

    Returns:
        Pixels (N, 2) and whether each point lies in front of the camera, inside the image and where the distortion
        model is still one-to-one (polynomials fold back far outside the image).
    """
    points = np.asarray(points_cam, dtype=np.float64).reshape(-1, 3)
    pixels = np.full((len(points), 2), np.nan)
    front = points[:, 2] > 1e-6
    if front.any():
        pixels[front] = _distort(model, points[front])
    with np.errstate(invalid="ignore"):
        inside = (pixels >= -0.5).all(axis=1) & (pixels[:, 0] < model.width - 0.5) & (pixels[:, 1] < model.height - 0.5)
    if inside.any() and model.D.any():
        tangents = points[inside, :2] / points[inside, 2:]
        back = unproject(model, pixels[inside])
        with np.errstate(invalid="ignore"):
            inside[inside] = (np.abs(back - tangents) < 1e-2 * (1.0 + np.abs(tangents))).all(axis=1)
    return pixels, inside


def unproject(model: CameraModel, pixels: npt.ArrayLike) -> FloatArray:
    """Tangents (x / z, y / z) of the rays through pixels, (N, 2) -> (N, 2).

    NaN where there is none: rays at 90 degrees or more from the axis, which an equidistant camera may see, and pixels
    that the distortion model reaches from no direction, as corners beyond the turning point of its polynomial.
    """
    pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
    plane = _to_plane(model, pixels)
    if model.distortion_model == "equidistant":
        return _undistort_equidistant(model, plane)
    if not model.D.any():
        return plane
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-10)
    # OpenCV 4 takes a stopping rule only under the first name, OpenCV 5 has only the second.
    undistort = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)
    tangents = undistort(plane.reshape(-1, 1, 2), np.eye(3), model.D, R=None, P=None, criteria=criteria)
    tangents = np.asarray(tangents, dtype=np.float64)[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):
        missed = np.abs(_distort(model, np.column_stack([tangents, np.ones(len(tangents))])) - pixels).max(axis=1)
    tangents[~(missed <= MAX_MISS_PX)] = np.nan
    return tangents


def _to_plane(model: CameraModel, pixels: FloatArray) -> FloatArray:
    """Pixels (N, 2) on the plane z = 1, still distorted."""
    y = (pixels[:, 1] - model.K[1, 2]) / model.K[1, 1]
    x = (pixels[:, 0] - model.K[0, 2] - model.K[0, 1] * y) / model.K[0, 0]
    return np.stack([x, y], axis=1)


def _distort(model: CameraModel, points: FloatArray) -> FloatArray:
    zero = np.zeros(3)
    if model.distortion_model == "equidistant":
        coefficients = model.D if model.D.any() else np.zeros(4)
        pixels, _ = cv2.fisheye.projectPoints(points.reshape(-1, 1, 3), zero, zero, model.K, coefficients)
    else:
        coefficients = model.D if model.D.any() else np.zeros(5)
        pixels, _ = cv2.projectPoints(points.reshape(-1, 1, 3), zero, zero, model.K, coefficients)
    pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
    pixels[:, 0] += model.K[0, 1] * (pixels[:, 1] - model.K[1, 2]) / model.K[1, 1]  # OpenCV leaves the skew out
    return pixels


def _undistort_equidistant(model: CameraModel, plane: FloatArray) -> FloatArray:
    """Newton's method on theta * (1 + k1 theta^2 + ...) = r (Kannala and Brandt 2006, as in OpenCV's fisheye model)."""
    k = model.D if model.D.any() else np.zeros(4)
    x, y = plane[:, 0], plane[:, 1]
    radius = np.hypot(x, y)
    theta = radius.copy()
    for _ in range(20):
        t2 = theta * theta
        value = theta * (1 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3])))) - radius
        slope = 1 + t2 * (3 * k[0] + t2 * (5 * k[1] + t2 * (7 * k[2] + t2 * 9 * k[3])))
        theta = np.clip(theta - value / np.where(np.abs(slope) < 1e-6, 1.0, slope), 0.0, np.pi)
    scale = np.where(radius > 1e-9, np.tan(theta) / np.maximum(radius, 1e-9), 1.0)
    tangents = np.stack([x * scale, y * scale], axis=1)
    tangents[theta >= np.pi / 2 - 1e-3] = np.nan
    return tangents


def canvas_size(model: CameraModel, pixels: int, multiple: int) -> tuple[int, int]:
    """Width and height with the camera's aspect ratio, about ``pixels`` in area, both multiples of ``multiple``."""
    aspect = min(max(model.width / model.height, 0.4), 4.0)
    width = max(1, round((pixels * aspect) ** 0.5 / multiple)) * multiple
    height = max(1, round((pixels / aspect) ** 0.5 / multiple)) * multiple
    return width, height


@dataclass(frozen=True)
class RectifiedImage:
    """A pinhole image.

    Attributes:
        image: (H, W, 3) uint8 RGB, black outside the camera's field of view, grey under its mask.
        mask: (H, W) bool, where the source image has pixels that may be looked at.
        K: (3, 3) float64, zero skew, equal focal lengths.
    """

    image: UInt8Array
    mask: npt.NDArray[np.bool_]
    K: FloatArray


class Rectifier:
    """Turns one camera's images into pinhole images of a given size: undistorted, scaled and padded in one remap.

    Attributes:
        model: the camera.
        K: (3, 3) float64 of the pinhole images.
        mask: (H, W) bool, where the camera has pixels that may be looked at.
        masked: (H, W) bool, where its model's mask reaches; None if it has no mask.
        reduced: width and height to which an image is averaged first.
        source_px: (H, W, 2) float32, which pixel of the reduced image each one is taken from; far outside where the mask is not.
    """

    def __init__(self, model: CameraModel, width: int, height: int) -> None:
        """Prepare the maps for a checked camera model; the whole field of view up to ``MAX_TANGENT`` fits inside."""
        check_camera(model)
        self.model = model
        low, high = _field_of_view(model)
        focal = float(min(width / (high[0] - low[0]), height / (high[1] - low[1])))
        center = np.array([(width - 1) / 2, (height - 1) / 2]) - focal * (low + high) / 2
        self.K = np.array([[focal, 0.0, center[0]], [0.0, focal, center[1]], [0.0, 0.0, 1.0]])
        u, v = np.meshgrid(np.arange(width), np.arange(height))
        rays = np.stack([(u - center[0]) / focal, (v - center[1]) / focal, np.ones(u.shape)], axis=-1).reshape(-1, 3)
        pixels, valid = project(model, rays)
        self.mask = valid.reshape(height, width)
        # Shrinking by remap alone would alias: reduce by area first, then remap the rest.
        self.reduced = _reduced_size(model, focal)
        ratio = np.array([self.reduced[0] / model.width, self.reduced[1] / model.height])
        source = np.where(valid[:, None], (pixels + 0.5) * ratio - 0.5, -10.0).astype(np.float32)
        self.source_px = source.reshape(height, width, 2)
        self._maps = cv2.convertMaps(self.source_px[..., 0], self.source_px[..., 1], cv2.CV_16SC2)
        self.masked = None if model.mask is None else self._reach_of(model.mask)
        if self.masked is not None:
            self.mask &= ~self.masked

    def __call__(self, image: UInt8Array) -> RectifiedImage:
        """Rectify an image (H, W, 3) uint8 of the model's size.

        Raises:
            CalibrationError: the image's size is not the one the intrinsics are for.
        """
        self.check_size(image.shape)
        if self.reduced != (self.model.width, self.model.height):
            image = np.asarray(cv2.resize(image, self.reduced, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        rectified = cv2.remap(image, self._maps[0], self._maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        rectified[~self.mask] = 0
        if self.masked is not None:
            rectified[self.masked] = MASKED_GREY
        return RectifiedImage(np.asarray(rectified, dtype=np.uint8), self.mask, self.K)

    def _reach_of(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Pixels (H, W) of the pinhole images into which a masked pixel goes, and at most one more around them."""
        shares = cv2.resize(mask.astype(np.float32), self.reduced, interpolation=cv2.INTER_AREA)
        touched = cv2.dilate((shares > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
        place = self.source_px.round()
        reached = cv2.remap(touched, place[..., 0], place[..., 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        return np.asarray(reached, dtype=np.bool_)

    def check_size(self, shape: tuple[int, ...]) -> None:
        """Check that an image has the model's size.

        Raises:
            CalibrationError: it has another.
        """
        if shape[:2] != (self.model.height, self.model.width):
            expected = f"{self.model.width}x{self.model.height}"
            raise CalibrationError(f"image is {shape[1]}x{shape[0]}, camera_info says {expected}")


def _field_of_view(model: CameraModel) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest tangents that the image reaches, each limited to ``MAX_TANGENT``."""
    u, v = np.meshgrid(np.linspace(-0.5, model.width - 0.5, 65), np.linspace(-0.5, model.height - 0.5, 65))
    tangents = unproject(model, np.stack([u, v], axis=-1))
    tangents = tangents[np.isfinite(tangents).all(axis=1)]
    if not len(tangents):
        raise CalibrationError("no pixel of the image has a ray, expected intrinsics of this camera")
    low, high = tangents.min(axis=0), tangents.max(axis=0)
    low, high = np.clip(low, -MAX_TANGENT, MAX_TANGENT), np.clip(high, -MAX_TANGENT, MAX_TANGENT)
    if (high - low < 1e-3).any():
        span = f"{low.tolist()} to {high.tolist()}"
        raise CalibrationError(f"field of view spans tangents {span}, expected a visible range")
    return low, high


def _reduced_size(model: CameraModel, focal: float) -> tuple[int, int]:
    ratio = focal / float(np.sqrt(model.K[0, 0] * model.K[1, 1]))
    if ratio > 0.7:
        return model.width, model.height
    return max(1, round(model.width * ratio)), max(1, round(model.height * ratio))
