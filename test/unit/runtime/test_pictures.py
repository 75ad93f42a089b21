# SPDX-License-Identifier: Apache-2.0
import numpy as np

from occupancy_nn_ros.messages.images import decode_image
from occupancy_nn_ros.messages.names import IMAGE
from occupancy_nn_ros.runtime.pictures import NAME_HEIGHT, PICTURE_WIDTH, PictureSource, encode_pictures, paired
from occupancy_nn_ros.values import CameraModel, PosedDepth, PosedImage
from occupancy_nn_ros.visualization.colors import depth_colors
from occupancy_nn_ros.visualization.depth_picture import GAP

MODEL, POSE = CameraModel(1, 1, np.eye(3), "none", np.zeros(0)), np.eye(4)


def image(camera, stamp_ns=5, color=(10, 20, 30)):
    return PosedImage(camera, stamp_ns, np.full((12, 16, 3), color, np.uint8), MODEL, POSE)


def depth(camera, stamp_ns=5, metres=2.0):
    return PosedDepth(camera, stamp_ns, np.full((3, 4), metres, np.float32), MODEL, POSE)


def test_each_picture_has_the_depth_of_its_own_camera_and_moment():
    images = [image("front"), image("rear"), image("left"), image("front", 6)]
    depths = [depth("left"), depth("front", 6), depth("rear", 4), depth("front")]
    assert [(i.camera, i.stamp_ns, d.camera, d.stamp_ns) for i, d in paired(images, depths)] == [
        ("front", 5, "front", 5), ("left", 5, "left", 5), ("front", 6, "front", 6),
    ]  # fmt: skip


def test_a_row_for_each_camera_with_its_depth_at_the_right():
    looks = ((image("front"), depth("front")), (image("rear", color=(200, 0, 0)), depth("rear", metres=0.0)))
    header, pixels = decode_image(IMAGE, encode_pictures(PictureSource(7, "base_link", looks)))
    assert (header.stamp_ns, header.frame_id) == (7, "base_link")
    height = PICTURE_WIDTH * 12 // 16
    assert pixels.shape == (2 * height + GAP, 2 * PICTURE_WIDTH + GAP, 3)
    second, beside = height + GAP, PICTURE_WIDTH + GAP
    named, below = pixels[:NAME_HEIGHT, :PICTURE_WIDTH], slice(NAME_HEIGHT, height)
    assert named.max() == 255 and named.min() == 0  # white letters on black
    assert (pixels[below, :PICTURE_WIDTH] == (10, 20, 30)).all()
    assert (pixels[:height, beside:] == depth_colors(np.array(2.0))).all()
    assert (pixels[second:][below, :PICTURE_WIDTH] == (200, 0, 0)).all()
    assert (pixels[second:, beside:] == 0).all()
    assert (pixels[height:second] == 255).all() and (pixels[:, PICTURE_WIDTH:beside] == 255).all()
