# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occupancy_nn_ros.errors import CalibrationError
from occupancy_nn_ros.geometry import cameras
from occupancy_nn_ros.values import CameraModel

DISTORTIONS = {
    "none": ("none", ()),
    "unnamed": ("", ()),
    "plumb_bob of zeros": ("plumb_bob", (0.0,) * 5),
    "plumb_bob 4": ("plumb_bob", (-0.28, 0.09, 0.0008, -0.0004)),
    "plumb_bob 5": ("plumb_bob", (-0.32, 0.12, 0.001, -0.0007, -0.02)),
    "pincushion": ("plumb_bob", (0.12, -0.05, 0.0, 0.0, 0.01)),
    "rational 8": ("rational_polynomial", (0.45, -0.02, 0.0002, -0.0001, 0.005, 0.70, 0.06, 0.01)),
    "rational 12": ("rational_polynomial", (0.4, -0.02, 2e-4, -1e-4, 0.005, 0.6, 0.05, 0.01, 1e-3, 2e-3, -1e-3, 1e-4)),
    "equidistant": ("equidistant", (-0.012, 0.004, -0.003, 0.0006)),
    "equidistant of zeros": ("equidistant", ()),
}


def camera(kind="none", *, width=640, height=480, focal=420.0, skew=0.0):
    name, D = DISTORTIONS[kind]
    K = np.array([[focal, skew, width / 2 + 3.3], [0, focal * 1.01, height / 2 - 2.2], [0, 0, 1.0]])
    return CameraModel(width, height, K, name, np.array(D, dtype=np.float64))


def ray_image(model):
    """An image whose red and green encode the tangents of each pixel's ray."""
    u, v = np.meshgrid(np.arange(model.width), np.arange(model.height))
    tangents = cameras.unproject(model, np.stack([u, v], -1).reshape(-1, 2)).reshape(model.height, model.width, 2)
    image = np.zeros((model.height, model.width, 3), np.uint8)
    image[..., :2] = np.round(np.clip(128 + 80 * tangents, 0, 255))
    image[..., 2] = 200
    return image


@pytest.mark.parametrize("skew", [0.0, 3.0])
@pytest.mark.parametrize("kind", DISTORTIONS)
def test_project_undoes_unproject(kind, skew):
    model = camera(kind, skew=skew)
    cameras.check_camera(model)
    u, v = np.meshgrid(np.linspace(0, model.width - 1, 23), np.linspace(0, model.height - 1, 17))
    pixels = np.stack([u, v], -1).reshape(-1, 2)
    tangents = cameras.unproject(model, pixels)
    again, inside = cameras.project(model, np.c_[tangents, np.ones(len(tangents))] * 3.7)
    assert inside.all()
    np.testing.assert_allclose(again, pixels, atol=1e-6 * 420)
    np.testing.assert_allclose(cameras.unproject(model, again), tangents, atol=1e-6)


@given(st.floats(-0.6, 0.6), st.floats(-0.5, 0.5), st.floats(0.1, 50))
def test_pinhole_is_similar_triangles(x, y, z):
    pixels, inside = cameras.project(camera(), [(x * z, y * z, z)])
    assert inside[0]
    np.testing.assert_allclose(pixels[0], (420 * x + 323.3, 424.2 * y + 237.8), atol=1e-6)


def test_plumb_bob_by_hand():
    model = camera("plumb_bob 5")
    k1, k2, p1, p2, k3 = model.D
    x, y = 0.41, -0.27
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    pixels, _ = cameras.project(model, [(2 * x, 2 * y, 2.0)])
    np.testing.assert_allclose(pixels[0], (420 * xd + 323.3, 424.2 * yd + 237.8), atol=1e-9)


def test_ideal_equidistant_measures_the_angle():
    angle = np.deg2rad(30)
    pixels, inside = cameras.project(camera("equidistant of zeros"), [(np.sin(angle), 0, np.cos(angle))])
    assert inside[0]
    assert pixels[0, 0] == pytest.approx(323.3 + 420 * angle, abs=1e-9)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_points_behind_or_beside_are_not_inside(kind):
    points = [(0, 0, -1.0), (0, 0, 0.0), (0.1, 0.1, -5.0), (0, 1e-9, 1e-9), (50.0, 0, 1.0), (np.nan, 0, 1.0)]
    _, inside = cameras.project(camera(kind), points)
    assert not inside.any()


def test_no_points_give_no_pixels():
    pixels, inside = cameras.project(camera("plumb_bob 5"), np.zeros((0, 3)))
    assert pixels.shape == (0, 2)
    assert inside.shape == (0,)


def test_polynomials_that_fold_back_are_not_inside():
    """Far outside the field of view the polynomial turns round and lands in the image again."""
    model = camera("plumb_bob 4")
    strong = replace(model, D=np.array([-0.35, 0.0, 0, 0, 0]))
    folded = np.linspace(1.2, 1.6, 9)
    pixels, inside = cameras.project(strong, np.c_[folded, np.zeros(9), np.ones(9)])
    assert (pixels[:, 0] > 0).all() and (pixels[:, 0] < model.width).all()  # it lands in the image ...
    assert not inside.any()  # ... and is refused
    assert cameras.project(strong, [(0.3, 0.1, 1.0)])[1][0]


def test_pixels_that_no_ray_reaches_have_no_tangent():
    """Beyond the turning point of its polynomial an image has no rays, whatever an iteration would end at."""
    D = np.array([0.35, -0.12, 2e-4, -1e-4, 0.005, 0.7, -0.06, 0.01])
    model = CameraModel(640, 480, camera().K, "rational_polynomial", D)
    tangents = cameras.unproject(model, [(639, 479), (639, 237), (500, 237), (323.3, 237.8)])
    assert np.isnan(tangents[0]).all()
    assert np.isfinite(tangents[1:]).all()
    rectifier = cameras.Rectifier(model, 256, 192)
    across = (256 - rectifier.K[0, 2]) / rectifier.K[0, 0]
    assert 1.0 < across < 1.5  # as far as rays go, not as far as the limit
    assert 0.6 < rectifier.mask.mean() < 1


def test_rays_beyond_ninety_degrees_have_no_tangent():
    model = camera("equidistant of zeros", focal=150.0)
    tangents = cameras.unproject(model, [(0.0, 237.8), (323.3, 237.8)])
    assert np.isnan(tangents[0]).all()
    np.testing.assert_allclose(tangents[1], 0, atol=1e-9)


@pytest.mark.parametrize("size", [(400, 304), (160, 128)])
@pytest.mark.parametrize("kind", DISTORTIONS)
def test_rectified_pixels_show_the_rays_they_should(kind, size):
    model = camera(kind, width=520, height=390, focal=325.0)
    rectifier = cameras.Rectifier(model, *size)
    result = rectifier(ray_image(model))
    assert result.image.shape == (size[1], size[0], 3)
    assert result.mask.mean() > 0.6
    assert (result.image[~result.mask] == 0).all()
    assert result.K[0, 0] == result.K[1, 1] and result.K[0, 1] == 0
    u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    expected = 128 + 80 * np.stack([(u - result.K[0, 2]) / result.K[0, 0], (v - result.K[1, 2]) / result.K[1, 1]], -1)
    inner = np.zeros_like(result.mask)
    inner[2:-2, 2:-2] = True
    for shift in (-2, 2):  # away from the edge of the field of view, where the border is repeated
        inner &= np.roll(result.mask, shift, 0) & np.roll(result.mask, shift, 1)
    error = result.image[..., :2].astype(float)[inner] - expected[inner]
    assert np.abs(error).max() < 1.6  # half a level of coding, half of rounding, half of interpolation
    assert np.abs(error.mean(axis=0)).max() < 0.09  # a shift of half a pixel would be 0.12 or more


def test_the_whole_field_of_view_fits_into_the_canvas():
    model = camera("pincushion")
    rectifier = cameras.Rectifier(model, 256, 192)
    border = cameras.unproject(model, [(-0.5, -0.5), (639.5, -0.5), (-0.5, 479.5), (639.5, 479.5)])
    u = rectifier.K[0, 0] * border[:, 0] + rectifier.K[0, 2]
    v = rectifier.K[1, 1] * border[:, 1] + rectifier.K[1, 2]
    assert u.min() >= -0.6 and u.max() <= 255.6 and v.min() >= -0.6 and v.max() <= 191.6


def test_rectifier_refuses_an_image_of_another_size():
    rectifier = cameras.Rectifier(camera(), 256, 192)
    with pytest.raises(CalibrationError, match=r"320x240.*640x480"):
        rectifier(np.zeros((240, 320, 3), np.uint8))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"K": np.full((3, 3), np.nan)}, "finite"),
        ({"K": np.zeros((3, 3))}, "focal"),
        ({"K": np.eye(2)}, "3x3"),
        ({"width": 0}, "size"),
        ({"height": -1}, "size"),
        ({"distortion_model": "thin_prism"}, "expected one of"),
        ({"distortion_model": "plumb_bob", "D": np.array([0.1, np.nan, 0, 0, 0])}, "finite"),
        ({"distortion_model": "plumb_bob", "D": np.array([0.1, 0, 0])}, "3 coefficients"),
        ({"distortion_model": "equidistant", "D": np.array([0.1, 0, 0, 0, 0])}, "5 coefficients"),
        ({"K": np.array([[500, 0, 1e6], [0, 500, 240], [0, 0, 1.0]])}, "field of view"),
    ],
)
def test_unusable_intrinsics_are_refused(change, words):
    with pytest.raises(CalibrationError, match=words):
        cameras.Rectifier(replace(camera(), **change), 128, 96)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(4096, 200_000))
def test_canvas_size(width, height, pixels):
    w, h = cameras.canvas_size(camera(width=width, height=height), pixels, 32)
    assert w % 32 == 0 and h % 32 == 0 and w > 0 and h > 0
    aspect = min(max(width / height, 0.4), 4.0)
    assert abs(w - (pixels * aspect) ** 0.5) <= max(16, 32 - (pixels * aspect) ** 0.5) + 1e-9
    assert abs(h - (pixels / aspect) ** 0.5) <= max(16, 32 - (pixels / aspect) ** 0.5) + 1e-9


def test_canvas_of_the_default_network():
    assert cameras.canvas_size(camera(), 49152, 32) == (256, 192)
