# SPDX-License-Identifier: Apache-2.0
"""A tiny library of furniture, made as Sweet Home 3D's are."""

import zipfile

import cv2
import numpy as np
import pytest

from occupancy_nn_ros.simulation import assets

BOX_OBJ = """mtllib box.mtl
o box
v 0 0 0
v 20 0 0
v 20 10 0
v 0 10 0
v 0 0 5
v 20 0 5
v 20 10 5
v 0 10 5
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl wood
f 1/1 4/4 3/3 2/2
f 5/1 6/2 7/3 8/4
usemtl blue
f 1 2 6 5
f 4 8 7 3
f 1 5 8 4
f -7 -6 -2 -3
"""
BOX_MTL = "newmtl wood\nKd 0.5 0.4 0.3\nmap_Kd wood.png\n\nnewmtl blue\nKd 0 0 1\nKs 0.5 0.5 0.5\nd 0.9\n"


@pytest.fixture
def write_library(tmp_path):
    """Write a library of these catalogue entries; returns its path."""

    def write(*entries, files=None, name="test.sh3f"):
        picture = cv2.imencode(".png", np.full((8, 8, 3), (60, 90, 120), np.uint8))[1].tobytes()
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as file:
            catalog = "license=CC0\n\n" + "\n\n".join(entries)
            file.writestr("PluginFurnitureCatalog.properties", catalog)
            for inside, data in {
                "box/box.obj": BOX_OBJ, "box/box.mtl": BOX_MTL, "box/wood.png": picture, **(files or {})
            }.items():  # fmt: skip
                file.writestr(inside, data)
        return path

    return write


@pytest.fixture
def asset_folder(tmp_path, monkeypatch):
    """An empty folder of assets."""
    folder = tmp_path / "assets"
    monkeypatch.setenv(assets.FOLDER_VARIABLE, str(folder))
    assets.load_asset.cache_clear()
    assets.read_index.cache_clear()
    yield folder
    assets.load_asset.cache_clear()
    assets.read_index.cache_clear()
