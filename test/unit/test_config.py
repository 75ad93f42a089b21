# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from occupancy_nn_ros.camera_settings import CameraConfig
from occupancy_nn_ros.config import Config, MapConfig, load_config
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.setting_doubts import doubts_about
from occupancy_nn_ros.settings import from_mapping, to_mapping


def all_settings(cls=Config, prefix=""):
    """(dotted name, field) of every setting."""
    for item in dataclasses.fields(cls):
        kind = item.default_factory if item.default is dataclasses.MISSING else None
        if dataclasses.is_dataclass(kind):
            yield from all_settings(kind, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", item


def get(config, name):
    for part in name.split("."):
        config = getattr(config, part)
    return config


NUMBERS = [(n, f) for n, f in all_settings() if isinstance(f.default, int | float) and not isinstance(f.default, bool)]


BANDS = [("grid.min_height_m", "grid.max_height_m"), ("outputs.markers_min_height_m", "outputs.markers_max_height_m")]
PARTNERS = {one: other for band in BANDS for one, other in (band, band[::-1])}
"""Settings of which one may not be more than the other."""

COMPANIONS = {
    "map.above_m": ["grid.min_height_m=0", "outputs.markers_min_height_m=0"],
    "map.log_odds_min": ["map.free_probability=0.5"],
    "map.log_odds_max": ["map.occupied_probability=0.5"],
    "map.free_probability": ["map.log_odds_min=-20"],
    "map.occupied_probability": ["map.log_odds_max=20"],
}
"""What an end of a setting's range needs of others."""


def test_every_setting_has_a_description_and_a_default_within_its_range():
    names = dict(all_settings())
    assert len(names) > 40
    for name, item in names.items():
        assert len(item.metadata["help"]) > 5, name
    for name, item in NUMBERS:
        low, high = item.metadata["low"], item.metadata["high"]
        assert low is not None, name
        assert low <= item.default <= (math.inf if high is None else high), name


@pytest.mark.parametrize("name", [name for name, _ in NUMBERS])
def test_every_number_is_checked_at_both_ends(name):
    item = dict(NUMBERS)[name]
    kind = type(item.default)
    low, high = item.metadata["low"], item.metadata["high"]
    for good in (low, high):
        if good is None:
            continue
        alone = [f"{name}={kind(good)}", *COMPANIONS.get(name, [])]
        if name in PARTNERS and (good > 0) == ("min" in name):  # beyond the other end, and beyond every map
            with pytest.raises(ConfigError, match="expected a band within the map"):
                load_config(overrides=[*alone, f"{PARTNERS[name]}={kind(good)}", "map.above_m=50", "map.below_m=50"])
        else:
            assert get(load_config(overrides=alone), name) == good
    for bad in (low - 1, None if high is None else high + 1):
        if bad is not None:
            with pytest.raises(ConfigError, match=rf"{name} is {kind(bad)}, expected"):
                load_config(overrides=[f"{name}={kind(bad)}"])


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_numbers_must_be_finite(value):
    with pytest.raises(ConfigError, match=r"voxel_size_m is (nan|inf|-inf), expected a finite number"):
        load_config(overrides=[f"voxel_size_m={value}"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("voxel_size=0.1", "unknown setting 'voxel_size', did you mean 'voxel_size_m'?"),
        ("map.size_m=3", "unknown setting 'map.size_m', did you mean 'map.size_xy_m'?"),
        ("cameras.front.topic=/x", "unknown setting 'cameras.front.topic'"),
        ("sync.zzz=1", "unknown setting 'sync.zzz', expected one of: "),
    ],
)
def test_unknown_settings_name_the_nearest_known_one(override, words):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("voxel_size_m=wide", "voxel_size_m is 'wide', expected float"),
        ("voxel_size_m=true", "voxel_size_m is True, expected float"),
        ("sync.queue=1.5", "sync.queue is 1.5, expected int"),
        ("sync.queue=true", "sync.queue is True, expected int"),
        ("base_frame=7", "base_frame is 7, expected str"),
        ("map=3", "map is 3, expected a group of settings"),
        ("source=sonar", "source is 'sonar', expected one of 'network', 'depth', 'lidar'"),
        ("cameras=[a, b]", "cameras is ['a', 'b'], expected a group of settings"),
        ("cameras.front=/topic", "cameras.front is '/topic', expected a group of settings"),
        ("voxel_size_m", "not of the form key=value"),
        ("=3", "not of the form key=value"),
    ],
)
def test_wrong_types_say_what_was_got_and_expected(override, words):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert words in str(caught.value)


def test_default_then_files_in_order_then_overrides(tmp_path):
    first, second = tmp_path / "base.yaml", tmp_path / "robot.yaml"
    first.write_text("voxel_size_m: 0.1\nmap: {size_xy_m: 10, below_m: 0.5}\nbase_frame: robot\n")
    second.write_text("voxel_size_m: 0.3\nmap: {below_m: 0.7}\ncameras: {front: {time_offset_s: 0.02}}\n")
    config = load_config([first, second], ["map.below_m=0.9", "cameras.front.frame_id=cam", "cameras.rear.frame_id=r"])
    assert config.voxel_size_m == 0.3  # the second file
    assert config.map.size_xy_m == 10.0  # the first file
    assert config.map.below_m == 0.9  # the override
    assert config.map.above_m == MapConfig().above_m  # the default
    assert config.base_frame == "robot"
    assert config.cameras == {
        "front": CameraConfig(frame_id="cam", time_offset_s=0.02), "rear": CameraConfig(frame_id="r"),
    }  # fmt: skip
    assert load_config([second, first]).voxel_size_m == 0.1
    assert load_config() == Config()


@pytest.mark.parametrize(("text", "value"), [("1e-1", 0.1), ("2E0", 2.0), ("1", 1.0), ("0.25", 0.25)])
def test_numbers_that_yaml_takes_for_text(text, value):
    assert load_config(overrides=[f"voxel_size_m={text}"]).voxel_size_m == value


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "3", "a: 2020-99-99", b"\xff\xfe\x00"])
def test_files_that_hold_no_settings(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config([path])


def test_missing_file_and_empty_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot read settings"):
        load_config([tmp_path / "none.yaml"])
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config([tmp_path / "empty.yaml"]) == Config()


def test_overrides_may_hold_what_yaml_cannot_read():
    assert load_config(overrides=["base_frame=2020-99-99"]).base_frame == "2020-99-99"
    assert load_config(overrides=["base_frame=[x"]).base_frame == "[x"
    assert load_config(overrides=["cameras.a.image_topic=/x=y"]).cameras["a"].image_topic == "/x=y"


def test_frames_have_no_leading_slash():
    """tf2 refuses every frame that begins with one, and with it all that is published in the map's."""
    config = load_config(
        overrides=["map_frame=/odom", "base_frame=/base_link", "cameras.a.frame_id=/eye", "cameras.a.sensor_frame=/b"]
    )
    assert (config.map_frame, config.base_frame) == ("odom", "base_link")
    assert (config.cameras["a"].frame_id, config.cameras["a"].sensor_frame) == ("eye", "b")


names = st.text("abcdefgh_", min_size=1, max_size=8)
configs = st.builds(
    Config,
    cameras=st.dictionaries(
        names, st.builds(CameraConfig, frame_id=names, time_offset_s=st.floats(-10, 10)), max_size=4
    ),
    base_frame=names,
    source=st.sampled_from(["network", "depth", "lidar"]),
    voxel_size_m=st.floats(0.01, 2.0),
    map=st.builds(MapConfig, size_xy_m=st.floats(8, 500), hit_log_odds=st.floats(0.01, 10)),
)


@given(configs)
def test_round_trip_through_yaml_and_json(config):
    assert from_mapping(Config, to_mapping(config)) == config
    assert from_mapping(Config, json.loads(json.dumps(to_mapping(config)))) == config
    assert from_mapping(Config, yaml.safe_load(yaml.safe_dump(to_mapping(config)))) == config


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().voxel_size_m = 1.0


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["grid.min_height_m=1.0", "grid.max_height_m=0.1"], "grid.min_height_m is 1.0 and max_height_m is 0.1"),
        (["outputs.markers_min_height_m=9"], "outputs.markers_min_height_m is 9.0 and markers_max_height_m is "),
        (["tf_static_topic=/tf"], "tf_topic and tf_static_topic are both /tf"),
        (["map_frame=/"], "map_frame is empty, expected the name of a frame"),
        (["cameras.a.image_topic=/x", "cameras.b.image_topic=/x"], "cameras a and b both have the image_topic /x"),
        (["robot.body=1 1 1 0 0 0"], "robot.body: '1 1 1 0 0 0', expected x y z"),
        (
            ["grid.class_costs=person=90, person=30"],
            "grid.class_costs: 'person' is given twice in 'person=90, person=30'",
        ),
        (
            ["map.occupied_probability=0.99"],
            "map.occupied_probability is 0.99 and map.log_odds_max is 4, where a voxel ends at 0.982",
        ),
        (
            ["map.free_probability=0.04"],
            "map.free_probability is 0.04 and map.log_odds_min is -3, where a voxel ends at 0.0474: nothing",
        ),
        (
            ["map.log_odds_max=0.1"],
            "map.occupied_probability is 0.55 and map.log_odds_max is 0.1, where a voxel ends at 0.525",
        ),
        (
            ["voxel_size_m=2", "map.size_xy_m=7"],
            "voxel_size_m is 2, for a map of 7 m by 4 m in height, expected 4 voxels",
        ),
        (
            [
                "map.above_m=0.2",
                "map.below_m=0",
                "grid.max_height_m=0.1",
                "grid.min_height_m=0",
                "voxel_size_m=0.4",
                "outputs.markers_min_height_m=0",
            ],
            "voxel_size_m is 0.4, for a map of 24 m by 0.2 m in height",
        ),
        (
            ["grid.min_height_m=3", "grid.max_height_m=5"],
            "grid.min_height_m is 3 and grid.max_height_m is 5, expected a band within the",
        ),
        (
            ["grid.max_height_m=-2", "grid.min_height_m=-3"],
            "grid.min_height_m is -3 and grid.max_height_m is -2, expected a band within",
        ),
        (
            ["outputs.markers_min_height_m=2.8", "outputs.markers_max_height_m=4"],
            "outputs.markers_min_height_m is 2.8 and outputs.markers",
        ),
        (
            ["grid.reference=ground", "grid.min_height_m=4", "grid.max_height_m=9"],
            "grid.min_height_m is 4 and grid.max_height_m is 9",
        ),
        (
            ["sync.min_cameras=2", "cameras.a.image_topic=/x"],
            "sync.min_cameras is 2, and there are 1 (a), expected as many",
        ),
        (["pose_topic=/tf"], "pose_topic is /tf, that of transforms"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(settings, text):
    """Each of them would have given a map: empty, of a robot that stands still, or without a camera."""
    with pytest.raises(ConfigError) as caught:
        load_config([], settings)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("settings", "name", "words"),
    [
        (["keyframes.min_period_s=2"], "keyframes.max_period_s", "updated every 2 s at most"),
        (["outputs.stale_after_s=1"], "outputs.stale_after_s", "updates its map every 1 s"),
        (["map.forget_model=linear", "map.forget_after_s=0.5"], "map.forget_after_s", "forgotten in between"),
        (["sync.tf_cache_s=1", "sync.max_wait_s=2"], "sync.tf_cache_s", "until others are forgotten"),
        (["map.above_m=1.0"], "grid.max_height_m", "grid.max_height_m is 1.6 and map.above_m is 1, expected no less"),
        (["map.forget_beyond_m=5", "map.remember_mib=64"], "map.remember_mib", "none is remembered"),
        (["grid.max_step_up_m=0.1"], "grid.max_step_up_m", "steps below 0.3 m are missed"),
        (["grid.max_step_down_m=1.5"], "grid.max_step_down_m", "taken for an edge"),
        (["source=depth", "network.depth_model=a.onnx"], "network.depth_model", "no network runs"),
    ],
)
def test_settings_that_cost_something_beside_each_other_are_said(settings, name, words):
    found = doubts_about(load_config([], settings))
    assert list(found) == [name] and words in found[name]


def test_settings_that_fit_each_other_raise_no_doubt():
    """Those of every shipped file, and such as are meant: never idle, a window below the band's bottom, ground that lies lower."""
    shipped = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))
    meant = ["keyframes.max_period_s=0", "grid.min_height_m=-2", "outputs.stale_after_s=1.5", "map.forget_beyond_m=5"]
    low = ["grid.reference=ground", "grid.max_height_m=3.5", "voxel_size_m=0.1", "grid.max_step_down_m=0.1"]
    assert shipped
    for files, settings in (([], []), (shipped, []), ([], meant), ([], low)):
        assert doubts_about(load_config(files, settings)) == {}
