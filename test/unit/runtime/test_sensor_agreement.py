# SPDX-License-Identifier: Apache-2.0
"""Who is left out where range sensors disagree, when, and in what words."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from box_room import MODEL, at, camera_at, depth_image, sweep

from occupancy_nn_ros.runtime.sensor_agreement import SensorAgreement, Standing, unit_that_fits
from occupancy_nn_ros.runtime.sight_lines import DepthSight
from occupancy_nn_ros.values import PosedCloud

SECOND = 1_000_000_000
DRIVE = [(0.15 * n, 0.0, 3.0 * n) for n in range(12)]
MOUNTS = {
    "left": camera_at(0.2, 0.1, 0.5, pitch=10),
    "right": camera_at(0.2, -0.1, 0.6, pitch=5, yaw=-10),
    "third": camera_at(0.2, 0, 0.8, pitch=15),
    "beside left": camera_at(0.2, 0.08, 0.5, pitch=10),
    "beside lidar": camera_at(0.1, 0, 0.9, pitch=5),
    "network on front": camera_at(0.2, 0, 0.55, pitch=8),
}
SMALL = replace(MODEL, width=80, height=60, K=np.array([[55.0, 0, 39.5], [0, 55, 29.5], [0, 0, 1]]))


@cache
def exact(name, x, y, yaw):
    """What a sensor measures of the room."""
    pose = at(x, y, 0, yaw)
    if name == "lidar":
        return sweep(pose @ at(0, 0, 0.9), name, steps=360)
    return depth_image(pose @ MOUNTS[name], SMALL, name)


def look(name, n, place, change=1.0):
    """The same at a moment, multiplied or changed otherwise."""
    seen = exact(name, *place)
    if name == "lidar":
        return replace(seen, stamp_ns=n * SECOND, points_m=(change * seen.points_m).astype(np.float32))
    z = change(seen.depth_m) if callable(change) else change * seen.depth_m
    return replace(seen, stamp_ns=n * SECOND, depth_m=z.astype(np.float32))


def objections(sensors, path=DRIVE, standings=None):
    """Reasons by sensor for which it is refused, look by look; ``sensors`` gives each its factor, or what changes it."""
    agreement, standings = SensorAgreement(), standings or {}
    said = {name: [] for name in sensors}
    for n, place in enumerate(path):
        for name, change in sensors.items():
            seen = look(name, n, place, change)
            if name.startswith("network"):
                agreement._keep(name, seen, Standing.NETWORK)
                continue
            usual = Standing.TOLD if name == "lidar" else Standing.DEPTH
            agreement.take(name, seen, standings.get(name, usual))
            found = agreement.objection(name)
            said[name].append(found and found.error(0.001))
    return said


def reasons(errors):
    return [error.reason if error else "" for error in errors]


def test_sensors_that_agree_are_all_used():
    said = objections({"lidar": 1.0, "left": 1.0, "right": 1.0, "network on front": 1.0})
    assert not any(error for errors in said.values() for error in errors)


@pytest.mark.parametrize(
    ("factor", "unit"), [(10.0, "0.0001"), (1 / 0.3048, "0.0003"), (0.1, "0.01"), (4.0, "0.00025")]
)
def test_a_lidar_tells_the_unit_of_a_depth_camera(factor, unit):
    """From the second comparison on; once told, what came before it spoils the map."""
    said = objections({"lidar": 1.0, "left": factor}, DRIVE[:5])
    assert reasons(said["lidar"]) == [""] * 5
    assert reasons(said["left"]) == [""] + ["depth is not in metres"] * 4
    assert [error.spoils_map for error in said["left"][1:]] == [True, False, False, False]
    assert str(said["left"][-1]) == (
        f"its distances are {factor:.3g} times those that 'lidar' measures at the same place: set cameras.left.depth_unit_m to {unit}"
    )


def test_the_unit_in_words_is_one_that_is_in_use():
    assert unit_that_fits(0.000103) == 0.0001
    assert unit_that_fits(0.0038) == 1 / 256
    assert unit_that_fits(0.31) == 0.3048
    assert unit_that_fits(0.0177) == 0.018


def test_of_two_depth_cameras_at_one_place_that_differ_none_is_used_until_one_is_known_to_be_right():
    sensors, path = {"left": 1.0, "beside left": 4.0}, DRIVE[:5]
    said = objections(sensors, path)
    assert reasons(said["left"])[2:] == reasons(said["beside left"])[2:] == ["depth is not in metres"] * 3
    text = str(said["beside left"][-1])
    assert "4 times those that 'left' measures" in text
    assert "one of the two is wrong; if it is this one, set cameras.beside left.depth_unit_m to 0.00025" in text
    said = objections(sensors, path, {"left": Standing.PROVEN})
    assert reasons(said["left"]) == [""] * 5
    assert str(said["beside left"][-1]).endswith("at the same place: set cameras.beside left.depth_unit_m to 0.00025")


def test_a_wrong_camera_does_not_cost_a_right_one_that_a_lidar_knows():
    said = objections({"left": 1.0, "right": 10.0, "lidar": 1.0, "third": 1.0}, DRIVE[:8])
    for right in ("left", "third", "lidar"):
        assert reasons(said[right])[-3:] == [""] * 3
    assert reasons(said["right"])[-5:] == ["depth is not in metres"] * 5


def test_a_unit_that_motion_has_shown_is_believed_and_the_cloud_is_not():
    """Millimetres in a cloud."""
    said = objections({"left": 1.0, "lidar": 1000.0}, DRIVE[:5], {"left": Standing.PROVEN})
    assert reasons(said["left"]) == [""] * 5
    assert reasons(said["lidar"])[2:] == ["cloud is not in metres"] * 3
    assert "1e+03 times those that 'left' measures at the same place, expected metres" in str(said["lidar"][-1])


def test_a_setting_that_a_lidar_contradicts_may_be_wrong_itself():
    """Which of the two is wrong nobody knows: neither makes a map, and what would fit is said."""
    said = objections({"beside lidar": 10.0, "lidar": 1.0}, DRIVE[:5], {"beside lidar": Standing.TOLD})
    assert reasons(said["beside lidar"])[2:] == ["depth is not in metres"] * 3
    assert reasons(said["lidar"])[3:] == ["cloud is not in metres"] * 2
    assert "one of the two is wrong; if it is this one, set cameras.beside lidar.depth_unit_m to" in str(
        said["beside lidar"][-1]
    )


def test_disparity_is_named():
    said = objections({"lidar": 1.0, "left": lambda z: 30 / z}, DRIVE[:5])
    assert reasons(said["left"])[1:] == ["depth is not in metres"] * 4
    assert "as disparity does: name the topic of the depth" in str(said["left"][-1])


def test_the_networks_depth_tells_a_unit_and_nothing_finer():
    said = objections({"network on front": 1.0, "left": 10.0, "right": 1.5}, DRIVE[:5], {"right": Standing.PROVEN})
    assert reasons(said["left"])[-2:] == ["depth is not in metres"] * 2
    said = objections({"network on front": 1.0, "left": 1.5}, DRIVE)
    assert reasons(said["left"]) == [""] * len(DRIVE)


def test_a_network_that_is_wrong_costs_no_sensor(rng):
    """What it says of pictures unlike any it has learned, however long."""
    noise = lambda z: rng.uniform(0.5, 6, z.shape)  # noqa: E731
    said = objections({"network on front": noise, "left": 1.0, "lidar": 1.0})
    assert not any(error for errors in said.values() for error in errors)
    said = objections({"network on front": 0.3, "lidar": 1.0, "left": 1.0}, standings={"left": Standing.PROVEN})
    assert not any(error for errors in said.values() for error in errors)


def test_a_confidence_map_is_left_out_once_it_has_contradicted_over_half_a_metre(rng):
    confidence = lambda z: rng.uniform(4, 12, z.shape)  # noqa: E731
    said = objections({"lidar": 1.0, "left": confidence})
    assert reasons(said["left"])[:4] == [""] * 4
    assert reasons(said["left"])[-2:] == ["depth contradicts other sensors"] * 2
    said = objections({"lidar": 1.0, "left": confidence}, [(0.01 * n, 0.0, 0.0) for n in range(12)])
    assert reasons(said["left"]) == [""] * 12  # one place may be all glass


def test_a_camera_that_has_agreed_is_not_left_out_for_what_contradicts_later(rng):
    """Glass, mirrors, a crowd: later on, and everywhere."""
    shown = iter(range(99))
    said = objections({"lidar": 1.0, "left": lambda z: z if next(shown) < 3 else rng.uniform(0.3, 0.6, z.shape)})
    assert reasons(said["left"]) == [""] * len(DRIVE)


def test_a_camera_whose_unit_is_mended_is_used_again():
    """Its driver was started anew: after six looks in a row that agree."""
    shown = iter(range(99))
    said = objections({"lidar": 1.0, "left": lambda z: z * (10 if next(shown) < 4 else 1)})
    assert reasons(said["left"])[1:9] == ["depth is not in metres"] * 8
    assert reasons(said["left"])[9:] == [""] * 3


def test_sensors_that_see_different_places_say_nothing():
    agreement = SensorAgreement()
    for n, place in enumerate(DRIVE):
        agreement.take("left", look("left", n, place, 10.0), Standing.DEPTH)
        agreement.take("right", look("right", n, (*place[:2], place[2] + 180)), Standing.DEPTH)
        assert agreement.objection("left") is None and agreement.objection("right") is None


def test_looks_far_apart_in_time_are_not_compared():
    agreement = SensorAgreement()
    for n, place in enumerate(DRIVE[:5]):
        agreement.take("left", look("left", 10 * n, place, 10.0), Standing.DEPTH)
        agreement.take("lidar", look("lidar", 10 * n + 5, place), Standing.TOLD)
        assert agreement.objection("left") is None


def test_the_same_look_is_compared_once():
    agreement = SensorAgreement()
    first, second = look("left", 0, DRIVE[0], 10.0), look("lidar", 0, DRIVE[0])
    for _ in range(4):
        agreement.take("left", first, Standing.DEPTH)
        agreement.take("lidar", second, Standing.TOLD)
    assert agreement.objection("left") is None  # one comparison, where two must say the same


def test_who_has_agreed_for_long_is_not_compared_any_more(monkeypatch):
    from occupancy_nn_ros.runtime import sensor_agreement

    calls = []
    compare = sensor_agreement.compare
    monkeypatch.setattr(sensor_agreement, "compare", lambda *args: calls.append(1) or compare(*args))
    objections({"lidar": 1.0, "left": 1.0}, [*DRIVE, *DRIVE])
    assert 6 <= len(calls) <= 20


def test_a_cloud_that_may_be_made_of_a_depth_image_does_not_speak_for_it():
    """Ten times too far, both: the network, which is right, is not overruled."""
    agreement = SensorAgreement()
    for n, place in enumerate(DRIVE[:8]):
        depth = look("left", n, place, 10.0)
        pose = depth.T_map_cam
        points = (DepthSight(depth).points - pose[:3, 3]) @ pose[:3, :3]
        agreement.take("left", depth, Standing.DEPTH)
        agreement.take("points", PosedCloud("points", n * SECOND, points.astype(np.float32), pose), Standing.TOLD)
        agreement.take_predicted([replace(look("network on front", n, place), camera="front")])
    found = agreement.objection("left")
    assert found is not None and found.judge == "'network on front'"
