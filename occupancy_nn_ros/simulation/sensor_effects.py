# SPDX-License-Identifier: Apache-2.0
"""What real cameras add to a rendered picture: blur, rolling shutter, vignetting, exposure, noise, JPEG.

A :class:`CameraCharacter` is what one camera keeps, a :class:`Shot` what differs from picture to picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from occupancy_nn_ros.values import FloatArray, UInt8Array

Rng = np.random.Generator


@dataclass(frozen=True)
class CameraCharacter:
    """What one camera does to all of its pictures.

    Attributes:
        gain: (3,) of red, green and blue: exposure and white balance.
        gamma: exponent of the tone curve; above 1 darkens the middle.
        black: offset of the tone curve, in [-1, 1].
        vignetting: share of light that is lost in the corners.
        radial: radial distortion that calibration left: a point at distance r from the centre, 1 in the corners, is shown
            at ``r (1 + radial r^2)``.
        shot_noise: standard deviation at full white, grey levels; it falls with the root of the light.
        read_noise: standard deviation whatever the light, grey levels.
        softness: standard deviation of the lens' blur, pixels.
        exposure_s: time over which moving things are smeared.
        readout_s: time from the first to the last row of a rolling shutter.
        jpeg_quality: 0 for none.
        grey: shows no colours.
    """

    gain: FloatArray
    gamma: float = 1.0
    black: float = 0.0
    vignetting: float = 0.0
    radial: float = 0.0
    shot_noise: float = 0.0
    read_noise: float = 0.0
    softness: float = 0.0
    exposure_s: float = 0.0
    readout_s: float = 0.0
    jpeg_quality: int = 0
    grey: bool = False


@dataclass(frozen=True)
class Shot:
    """What is particular to one picture.

    Attributes:
        exposure: factor by which automatic exposure is off at this moment.
        turning: (2,) angular velocity about the camera's x and y axes, rad/s, of its shaking.
    """

    exposure: float
    turning: FloatArray


def random_cameras(rng: Rng, count: int, light: float) -> list[CameraCharacter]:
    """Cameras of one rig: of one kind, which differ a little in exposure and white balance.

    Args:
        rng: source of randomness.
        count: how many.
        light: mean of what they see, in [0, 1], which automatic exposure brings near the middle.
    """
    exposure = (rng.uniform(0.3, 0.6) / max(light, 0.02)) ** rng.uniform(0.4, 1)
    common = exposure * rng.uniform(0.8, 1.25) * (1 + rng.uniform(-0.12, 0.12, 3))
    noisy = rng.random() < 0.7
    kind = {
        "gamma": float(rng.uniform(0.7, 1.5)),
        "black": float(rng.uniform(-0.06, 0.1)),
        "vignetting": float(rng.uniform(0, 0.5) * (rng.random() < 0.5)),
        "shot_noise": float(rng.uniform(0, 12) * noisy),
        "read_noise": float(rng.uniform(0, 4) * noisy),
        "softness": float(rng.uniform(0.4, 1.1) * (rng.random() < 0.3)),
        "exposure_s": float(rng.uniform(0.002, 0.025)),
        "readout_s": float(rng.uniform(0.01, 0.03) * (rng.random() < 0.6)),
        "jpeg_quality": int(rng.integers(40, 96) * (rng.random() < 0.6)),
        "grey": bool(rng.random() < 0.12),
    }
    radial = rng.uniform(-0.01, 0.01) * (rng.random() < 0.5)
    return [
        CameraCharacter(
            gain=common * rng.uniform(0.87, 1.15) * (1 + rng.uniform(-0.06, 0.06, 3)),
            radial=float(radial * rng.uniform(0.7, 1.3)),
            **kind,  # type: ignore[arg-type]
        )
        for _ in range(count)
    ]


def random_shots(rng: Rng, count: int, shaking: float) -> list[Shot]:
    """Pictures in a row; ``shaking`` is the standard deviation of the angular velocity, rad/s."""
    return [Shot(float(np.exp(rng.normal(0, 0.06))), rng.normal(0, shaking, 2)) for _ in range(count)]


def take_pictures(
    images: UInt8Array, focal_px: Sequence[float], cameras: Sequence[CameraCharacter], shots: Sequence[Shot], rng: Rng
) -> UInt8Array:
    """Rendered pictures (N, H, W, 3) uint8 RGB as real cameras take them.

    Args:
        images: what is seen.
        focal_px: (N,) focal lengths.
        cameras: (N,) which camera took each.
        shots: (N,) the moment of each.
        rng: source of the noise.
    """
    taken = np.empty_like(images)
    for index, (image, focal, camera, shot) in enumerate(zip(images, focal_px, cameras, shots, strict=True)):
        picture = _through_lens(np.ascontiguousarray(image), focal, camera, shot)
        picture = _develop(picture, camera, shot, rng)
        taken[index] = _compress(picture, camera.jpeg_quality)
    return taken


def _through_lens(image: UInt8Array, focal_px: float, camera: CameraCharacter, shot: Shot) -> UInt8Array:
    """Distortion, rolling shutter (each row is seen from where the camera then looks), motion blur, softness."""
    height, width = image.shape[:2]
    speed = focal_px * np.array([shot.turning[1], -shot.turning[0]])  # pixels a second, along u and v
    if camera.radial or (camera.readout_s and np.abs(speed).max() * camera.readout_s > 0.2):
        u, v = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        x, y = u - (width - 1) / 2, v - (height - 1) / 2
        reach = 1 - camera.radial * (x**2 + y**2) / ((width / 2) ** 2 + (height / 2) ** 2)
        late = camera.readout_s * y / height
        map_u = (width - 1) / 2 + x * reach + late * speed[0]
        map_v = (height - 1) / 2 + y * reach + late * speed[1]
        image = cv2.remap(
            image, map_u.astype(np.float32), map_v.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ).astype(np.uint8)
    smear = speed * camera.exposure_s
    if np.abs(smear).max() > 0.7:
        image = cv2.filter2D(image, -1, _line(smear)).astype(np.uint8)
    if camera.softness:
        image = cv2.GaussianBlur(image, (0, 0), camera.softness).astype(np.uint8)
    return image


def _line(smear_px: FloatArray) -> FloatArray:
    """Kernel of light that moves along a line of this extent; sums to 1."""
    reach = int(np.ceil(np.abs(smear_px).max() / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for along in np.linspace(-0.5, 0.5, 4 * reach + 1):
        u, v = reach + along * smear_px
        left, top = int(np.floor(u)), int(np.floor(v))
        for column, row in np.ndindex(2, 2):
            share = (1 - abs(left + column - u)) * (1 - abs(top + row - v))
            kernel[top + row, left + column] += share
    return np.asarray(kernel / kernel.sum(), dtype=np.float64)


def _develop(image: UInt8Array, camera: CameraCharacter, shot: Shot, rng: Rng) -> UInt8Array:
    """Exposure, white balance, tone curve, vignetting and noise."""
    table = np.arange(256)[:, None] / 255.0
    curves = np.clip(camera.black + camera.gain * shot.exposure * table**camera.gamma, 0, 1) * 255
    out = cv2.LUT(image, curves.reshape(1, 256, 3).astype(np.uint8))
    if camera.grey:
        out = np.repeat(out.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    if camera.vignetting:
        height, width = out.shape[:2]
        v, u = np.mgrid[0:height, 0:width].astype(np.float32)
        off = ((2 * u / width - 1) ** 2 + (2 * v / height - 1) ** 2) / 2
        out = (out * (1 - np.float32(camera.vignetting) * off)[..., None]).astype(np.uint8)
    if camera.shot_noise or camera.read_noise:
        light = out.astype(np.float32)
        variance = np.float32(camera.read_noise**2) + light * np.float32(camera.shot_noise**2 / 255)
        channels = 1 if camera.grey else 3
        noise = rng.standard_normal((*out.shape[:2], channels), dtype=np.float32)
        out = np.clip(light + noise * np.sqrt(variance), 0, 255).astype(np.uint8)
    return np.asarray(out, dtype=np.uint8)


def _compress(image: UInt8Array, quality: int) -> UInt8Array:
    """The picture after JPEG, channels in the order that the codec expects."""
    if not quality:
        return image
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)[..., ::-1]
