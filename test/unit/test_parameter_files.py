# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from occupancy_nn_ros.config import CameraConfig, load_config
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
