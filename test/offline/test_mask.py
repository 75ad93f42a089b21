# SPDX-License-Identifier: Apache-2.0
"""``occupancy-nn mask``: the robot's own body is found in pictures of a world that passes, and nothing where there is none."""

import cv2
import numpy as np
import pytest
import yaml

from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.doctor.still_pixels import LEAST_PICTURES, StillPixels
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.messages.names import CAMERA_INFO, IMAGE, TF_MESSAGE
from occupancy_nn_ros.messages.sensors import encode_camera_info, encode_image, encode_tf
from occupancy_nn_ros.runtime.camera_mask import masked, read_mask
from occupancy_nn_ros.values import CameraModel, StampedTransform

WIDTH, HEIGHT = 160, 120
MODEL = CameraModel(WIDTH, HEIGHT, [[110.0, 0, 80], [0, 110, 60], [0, 0, 1]], "none", [])
START_NS = 10**12


def world_pictures(count=24, seed=0):
    """A textured street front that passes, plain sky above its roofs and a plain floor before it, as noisy as a camera."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 255, (HEIGHT, WIDTH * 4, 3)).astype(np.float32)
    wall = (cv2.GaussianBlur(noise, (0, 0), 3) * 5 - 510).clip(0, 255)
    roofs = np.repeat(rng.integers(8, 40, 64), 12)[: WIDTH * 4]
    rows = np.arange(HEIGHT)[:, None]
    for n in range(count):
        part = slice(13 * n, 13 * n + WIDTH)
        foot = 72 + 9 * np.sin(0.9 * n) + (np.arange(WIDTH) - 80) * 0.12 * np.sin(0.5 * n)  # nearer, further, aslant
        image = np.where((rows < roofs[part])[..., None], (200.0, 210.0, 230.0), wall[:, part])
        image = np.where((rows > foot)[..., None], (90.0, 85.0, 80.0), image)
        yield np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def body():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    outline = [[0, 105], [40, 92], [80, 88], [120, 92], [160, 105], [160, 120], [0, 120]]
    cv2.fillPoly(mask, [np.array(outline, np.int32)], 1)
    cv2.rectangle(mask, (16, 20), (30, 119), 1, -1)
    return mask.astype(bool)


def with_body(pictures, color):
    """The body in front of the pictures, brighter and darker as the light changes."""
    rng = np.random.default_rng(1)
    for image in pictures:
        lit = np.array(color) * rng.uniform(0.94, 1.06) + rng.normal(0, 3, image.shape)
        yield np.where(body()[..., None], lit.clip(0, 255), image).astype(np.uint8)


def compared(pictures, step_m=0.1):
    pixels = StillPixels()
    for n, image in enumerate(pictures):
        pixels.add(image, make_transform((step_m * n, 0, 0), (0, 0, 0, 1)))
    return pixels


@pytest.mark.parametrize("color", [(30, 30, 35), (225, 160, 40), (150, 150, 150)])
def test_a_body_is_found_and_little_else(color):
    found = compared(with_body(world_pictures(), color)).mask()
    assert (found & body()).sum() > 0.97 * body().sum()
    assert (found & ~body()).mean() < 0.06


def test_nothing_is_found_where_there_is_no_body():
    """Neither plain floor nor plain sky, which do not change either."""
    assert not compared(world_pictures()).mask().any()


def test_a_camera_that_stands_still_tells_nothing():
    pixels = compared(with_body(world_pictures(), (30, 30, 35)), step_m=0.0)
    assert pixels.pictures == 1 and not pixels.mask().any()
    few = compared(with_body(world_pictures(LEAST_PICTURES - 1), (30, 30, 35)))
    assert not few.mask().any()


def test_a_long_drive_takes_no_more_memory():
    pixels = compared(picture for seed in range(15) for picture in world_pictures(seed=seed))
    assert pixels.pictures == 360 and len(pixels._greys) <= 120


def record(path):
    """Two cameras, of which the front one sees the robot's body."""
    mounts = {"front": (-0.5, 0.5, -0.5, 0.5), "back": (0.5, 0.5, -0.5, -0.5)}
    pictures = {"front": with_body(world_pictures(), (30, 30, 35)), "back": world_pictures(seed=1)}
    with BagWriter(path) as writer:
        static = [
            StampedTransform(START_NS, "base_link", f"{n}_optical", make_transform((0, 0, 0.5), q))
            for n, q in mounts.items()
        ]
        writer.write("/tf_static", TF_MESSAGE, START_NS, encode_tf(static))
        for n, both in enumerate(zip(*pictures.values(), strict=True)):
            stamp = START_NS + n * 300_000_000
            pose = make_transform((0.15 * n, 0, 0), (0, 0, np.sin(0.03 * n), np.cos(0.03 * n)))
            writer.write("/tf", TF_MESSAGE, stamp, encode_tf([StampedTransform(stamp, "odom", "base_link", pose)]))
            for name, image in zip(pictures, both, strict=True):
                info = encode_camera_info(stamp, f"{name}_optical", MODEL)
                writer.write(f"/{name}/camera_info", CAMERA_INFO, stamp, info)
                writer.write(f"/{name}/image_raw", IMAGE, stamp, encode_image(stamp, f"{name}_optical", image))
    return path


def test_masks_overlays_and_settings_are_written_and_used(tmp_path, capsys):
    bag, out = record(tmp_path / "drive.mcap"), tmp_path / "masks"
    assert main(["mask", str(bag), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "front: 3" in said and "of the picture stays while it moves (24 pictures" in said
    assert "back: nothing stays while it moves, no mask is needed" in said
    assert sorted(p.name for p in out.iterdir()) == [
        "back_overlay.png",
        "front.png",
        "front_overlay.png",
        "settings.yaml",
    ]
    mask = read_mask(out / "front.png")
    assert (mask & body()).sum() > 0.97 * body().sum()
    overlay = cv2.imread(str(out / "front_overlay.png"))[..., ::-1].astype(int)
    assert (overlay[mask][:, 0] > overlay[mask][:, 2] + 60).all()
    config = load_config([out / "settings.yaml"])
    assert list(config.cameras) == ["back", "front"] and not config.cameras["back"].mask
    np.testing.assert_array_equal(masked(MODEL, config.cameras["front"].mask).mask, mask)
    assert yaml.safe_load(said[said.index("cameras:") :]) == yaml.safe_load((out / "settings.yaml").read_text())


def test_too_few_pictures_say_so(tmp_path, capsys):
    bag = record(tmp_path / "drive.mcap")
    assert main(["mask", str(bag), "--out", str(tmp_path / "masks"), "--end", "2.0"]) == 0
    assert "front: too few pictures from different places to tell" in capsys.readouterr().out
