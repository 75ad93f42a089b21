# SPDX-License-Identifier: Apache-2.0
"""The Python entry: the README's lines and the tutorial run as they stand, and all that is promised is there."""

import re
import runpy
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from occupancy_nn_ros import api
from occupancy_nn_ros.values import VoxelState

ROOT = Path(__file__).resolve().parents[2]


def test_all_that_is_promised_is_there_and_documented():
    assert sorted(api.__all__) == sorted(set(api.__all__))
    for name in api.__all__:
        entry = getattr(api, name)
        assert entry.__doc__, name
    assert set(api.__all__) == {name for name in vars(api) if not name.startswith("__")} | {"__version__"}


@pytest.fixture
def lines():
    (text,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    return text


def test_the_lines_of_the_readme_find_the_box_and_the_wall(lines, tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    for name in ("front_1.jpg", "front_2.jpg"):
        shutil.copy(ROOT / "demo" / name, tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(lines, "README.md", "exec"), names)
    assert names["state"].tolist() == [VoxelState.FREE, VoxelState.OCCUPIED, VoxelState.OCCUPIED]
    assert names["probability"][0] < 0.1 and (names["probability"][1:] > 0.7).all()
    assert cv2.imread(str(tmp_path / "map.png")).std() > 5
    assert names["grid"].query([[-3.0, 0.0, 0.5]])[1] == [VoxelState.UNKNOWN]  # behind the camera


def test_the_lines_are_short(lines):
    assert max(len(line) for line in lines.splitlines()) <= 140
    assert len([line for line in lines.splitlines() if line and not line.startswith(("import", "from"))]) <= 10


def test_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(ROOT / "docs" / "tutorial.py"))
    folder = tmp_path / "out" / "tutorial"
    for picture in ("top_down.png", "view_3d.png", "depth.png"):
        assert cv2.imread(str(folder / picture)).std() > 5
    printed = capsys.readouterr().out
    assert len(re.findall(r"degrees: \d\.\d m", printed)) == 12
    assert "saved in frame odom" in printed
    assert set(np.unique(names["cost"].values)) <= {-1, 0, 100}
    assert (names["state"] == VoxelState.FREE).any()
    assert (names["hits"].distance_m < 5).any()
