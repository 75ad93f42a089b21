# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from occupancy_nn_ros.camera_settings import CameraConfig
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import ConfigError

ROS_FILE = """
/**:
  ros__parameters:
    use_sim_time: true
    autostart: false
    voxel_size_m: 0.1
    cameras: [front]
    front: {image_topic: /front/image_raw}
    front.time_offset_s: 0.5
    map.size_xy_m: 8.0
    map: {below_m: 0.5}
"""


def written(tmp_path, text):
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("node", ["/**", "/*", "occupancy_nn", "/robot1/occupancy_nn", "mapper"])
def test_a_ros_parameter_file_is_a_settings_file_too(tmp_path, node):
    config = load_config([written(tmp_path, ROS_FILE.replace("/**", node))])
    assert (config.voxel_size_m, config.map.size_xy_m, config.map.below_m) == (0.1, 8.0, 0.5)
    assert config.cameras == {"front": CameraConfig(image_topic="/front/image_raw", time_offset_s=0.5)}


def test_namespaces_may_be_groups_and_the_nodes_own_part_is_taken(tmp_path):
    text = "robot1: {occupancy_nn: {ros__parameters: {voxel_size_m: 0.1}}, amcl: {ros__parameters: {alpha: 1}}}"
    assert load_config([written(tmp_path, text)]).voxel_size_m == 0.1


def test_a_pattern_for_another_node_is_none_for_this_one(tmp_path):
    text = "/**/amcl: {ros__parameters: {alpha: 1}}\n/**/occupancy_nn: {ros__parameters: {voxel_size_m: 0.1}}"
    assert load_config([written(tmp_path, text)]).voxel_size_m == 0.1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("map: {size_xy_m: 16.0}\nmap: {below_m: 1.0}", r"robot.yaml: map is given twice, the second time in line 2"),
        ("[1, 2]: 3", "cannot read settings"),
        ("map: {below_m: 1.0, below_m: 2.0}", "map.below_m is given twice"),
        ("voxel_size_m: 0.1\n/**: {ros__parameters: {source: lidar}}", "has voxel_size_m beside ros__parameters"),
        ("map: {below_m: 1.0}\n/**: {ros__parameters: {source: lidar}}", "has map beside ros__parameters"),
        (
            "r1: {occupancy_nn: {ros__parameters: {voxel_size_m: 0.1}}}\nr2: {occupancy_nn: {ros__parameters: {voxel_size_m: 0.2}}}",
            "parameters of /r1/occupancy_nn, /r2/occupancy_nn that differ",
        ),
    ],
)
def test_nothing_of_a_file_is_lost_silently(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        load_config([written(tmp_path, text)])


def test_anchors_and_robots_that_agree_are_no_repeats(tmp_path):
    text = "r1: {occupancy_nn: {ros__parameters: &one {voxel_size_m: 0.1}}}\nr2: {occupancy_nn: {ros__parameters: {<<: *one}}}"
    assert load_config([written(tmp_path, text)]).voxel_size_m == 0.1


def test_parts_that_stand_in_many_places_are_looked_at_once(tmp_path):
    """2 ** 40 places of one part."""
    lines = ["b0: &b0 {q: 1}", *(f"b{n}: &b{n} {{x: *b{n - 1}, y: *b{n - 1}}}" for n in range(1, 40))]
    with pytest.raises(ConfigError, match="unknown setting 'b0'"):
        load_config([written(tmp_path, "\n".join(lines))])


def test_a_file_for_others_is_named_as_such(tmp_path):
    text = "amcl: {ros__parameters: {alpha: 1}}\nplanner: {ros__parameters: {beta: 1}}"
    with pytest.raises(ConfigError, match="holds parameters of /amcl, /planner, expected some of occupancy_nn"):
        load_config([written(tmp_path, text)])


def test_an_unknown_name_in_it_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown setting 'voxel_size', did you mean 'voxel_size_m'\?"):
        load_config([written(tmp_path, "/**: {ros__parameters: {voxel_size: 0.1}}")])


def test_files_are_looked_for_at_home_and_in_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path, "voxel_size_m: 0.3")
    assert load_config([Path("~/robot.yaml")]).voxel_size_m == 0.3
    assert load_config([Path("base.yaml")]) == load_config()  # config/base.yaml
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config([Path("nowhere.yaml")])
