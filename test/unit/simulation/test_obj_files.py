# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from occupancy_nn_ros.errors import SimulationError
from occupancy_nn_ros.simulation import obj_files
from occupancy_nn_ros.simulation.obj_files import Material, read_mtl, read_obj

SQUARE = "v 0 0 0\nv 2 0 0\nv 2 1 0\nv 0 1 0\n"


def test_a_quad_is_two_triangles_with_its_normal():
    (part,) = read_obj(SQUARE + "f 1 2 3 4\n", lambda name: "")
    assert part.corners.shape == (2, 3, 3) and part.material == Material()
    np.testing.assert_array_equal(part.normals, np.tile([0, 0, 1], (2, 3, 1)))
    area = np.linalg.norm(np.cross(*(part.corners[:, n] - part.corners[:, 0] for n in (1, 2))), axis=1).sum() / 2
    assert area == pytest.approx(2.0)


def test_counting_from_the_end_and_given_normals():
    text = SQUARE + "vn 0 3 4\nf -4//-1 -3//-1 -2//-1\n"
    (part,) = read_obj(text, lambda name: "")
    np.testing.assert_array_equal(part.corners[0], [(0, 0, 0), (2, 0, 0), (2, 1, 0)])
    np.testing.assert_allclose(part.normals[0], np.tile([0, 0.6, 0.8], (3, 1)), rtol=1e-6)


def test_materials_part_the_mesh_and_pictures_need_coordinates():
    files = {"m.mtl": "newmtl a b\nKd 0.1 0.2 0.3\nmap_Kd sub\\wood 1.jpg\nnewmtl c\nKs 1 0 0.5\nd 0.3\nmap_Kd x.png\n"}
    text = "mtllib m.mtl\n" + SQUARE + "vt 0.25 0.5\nusemtl a b\nf 1/1 2/1 3/1\nusemtl c\nf 1 3 4\n"
    first, second = read_obj(text, files.__getitem__)
    assert first.material == Material((0.1, 0.2, 0.3), 1.0, 0.0, "sub/wood 1.jpg")
    np.testing.assert_allclose(first.texcoords, np.tile([0.25, 0.5], (1, 3, 1)))
    assert second.material == Material(Material().color, 0.3, 0.5, "")


def test_empty_triangles_are_left_out():
    (part,) = read_obj(SQUARE + "usemtl a\nf 1 1 2\nusemtl b\nf 1 1 2\nf 1 2 3\nusemtl c\nf 1 2\n", lambda name: "")
    assert len(part.corners) == 1


def test_what_cannot_be_read_in_a_material_is_left_out():
    assert read_mtl("Kd 1 1 1\nnewmtl a\nKd x y z\nd\nKd 0.5 0.5 0.5\n")["a"] == Material((0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v 0 0 0\n", "no faces"),
        (SQUARE + "f 1 2 9\n", "damaged: a face names point 9, expected 1 to 4"),
        (SQUARE + "f 1 2 x\n", "damaged"),
        ("v 0 0 a\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "damaged"),
    ],
)
def test_damaged_models_are_refused(text, words):
    with pytest.raises(SimulationError, match=words):
        read_obj(text, lambda name: "")


def test_huge_models_are_refused(monkeypatch):
    monkeypatch.setattr(obj_files, "MOST_TRIANGLES", 3)
    with pytest.raises(SimulationError, match="more than 3 triangles"):
        read_obj(SQUARE + "f 1 2 3 4\n" * 2, lambda name: "")
