# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of sensors that are each well, and of which few sets can be made all the same."""

from dataclasses import replace

import numpy as np
import pytest
from room_drive import SECOND, START_NS, examine, images, moves, static, write

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.bags.writer import BagWriter
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.doctor.examination import examine_bag
from occupancy_nn_ros.messages.headers import restamp
from occupancy_nn_ros.messages.names import CAMERA_INFO, IMAGE
from occupancy_nn_ros.messages.typestore import deserialize, serialize
from occupancy_nn_ros.runtime.player import plan_play, play_bag


def checks(tmp_path, second, *settings):
    """Findings on two cameras that look the same way, of which the second's messages are changed."""
    parts = (static(), static(child="other"), moves(), images(), second(images("other", folder="/other")))
    found = examine(write(tmp_path / "bag", *parts), *settings)
    (said,) = [text for _, subject, text, _ in found if subject == "map"]
    return int(said.split()[0]), [(text, advice) for level, _, text, advice in found if level != "ok"]


def delayed(seconds):
    return lambda messages: [replace(m, recorded_ns=m.recorded_ns + round(seconds * SECOND)) for m in messages]


def within(start_s, end_s):
    return lambda messages: [m for m in messages if start_s <= (m.recorded_ns - START_NS) / SECOND < end_s]


@pytest.mark.parametrize(
    "second", [delayed(0.0), delayed(0.3), within(0.5, 4.5)], ids=["plain", "0.3 s late", "nearly all"]
)
def test_two_cameras_in_step_are_well(tmp_path, second):
    keyframes, found = checks(tmp_path, second)
    assert found == [] and keyframes > 15


def test_a_camera_whose_frames_come_later_than_they_are_waited_for(tmp_path):
    """Stamps agree and each camera is well, and nearly nothing would be mapped."""
    keyframes, ((text, advice),) = checks(tmp_path, delayed(0.8))
    assert keyframes < 5
    assert text.startswith("frames of 'other' come 0.8 s after others of their time, and are waited for 0.5 s")
    assert advice.endswith("raise sync.max_wait_s to 0.9")
    assert checks(tmp_path / "2", delayed(0.8), "sync.max_wait_s=0.9") == checks(tmp_path / "3", delayed(0.0))


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (within(2.5, 9), "begins 2.5 s after the first sensor: for up to 5 s nothing is mapped without it"),
        (within(0, 2), "ends 3.0 s before the last sensor: for up to 5 s nothing is mapped without it"),
    ],
    ids=["late", "early"],
)
def test_a_camera_that_is_there_for_a_part_only(tmp_path, second, says):
    keyframes, ((text, advice),) = checks(tmp_path, second)
    assert text == says and "sync.min_cameras" in advice
    fewer, found = checks(tmp_path / "2", second, "sync.min_cameras=1")
    assert fewer > keyframes and found == []


def test_a_sensor_that_measures_nothing_is_told(tmp_path):
    """The map stays empty, and all else about the recording is well."""

    def blind(messages):
        for m in messages:
            if m.msgtype == IMAGE:
                image = deserialize(IMAGE, m.cdr)
                image.data = np.full_like(image.data, 255)  # 65535, as some drivers write for nothing
                m = replace(m, cdr=serialize(image))
            yield m

    _, found = checks(tmp_path, lambda messages: list(blind(messages)))
    (text,) = [text for text, _ in found]
    assert text.endswith("frames hold no distance at all")


@pytest.mark.parametrize("silent", ["eye", "other"])
def test_a_silent_sensor_keeps_nothing_from_being_judged(tmp_path, silent):
    """Only its camera_info comes; what is found of the other one is found all the same."""
    rest = [m for m in [*images(), *images("other", folder="/other")] if m.msgtype != IMAGE or silent not in m.topic]
    names = [f"cameras.{name}.image_topic=/{name}/depth/image_raw" for name in ("eye", "other")]
    empty = [replace(m, recorded_ns=m.recorded_ns + 60 * SECOND) for m in images(silent, folder=f"/{silent}")[1:2]]
    path = write(tmp_path / "bag", static(), static(child="other"), moves(), rest, empty)
    problems = {subject: text for level, subject, text, _ in examine(path, *names) if level == "problem"}
    assert set(problems) == {silent, "map"} and "no message" in problems[silent]


def test_two_cameras_with_one_frame(small_bag, tiny_model, tmp_path):
    """As of drivers whose default frame nobody has changed."""
    with BagReader(small_bag) as reader, BagWriter(tmp_path / "bag.mcap") as writer:
        for message in reader.messages():
            cdr = message.cdr
            if message.topic.startswith("/front") and message.msgtype in (CAMERA_INFO, IMAGE):
                changed = deserialize(message.msgtype, cdr)
                changed.header.frame_id = "back_optical"
                if message.msgtype == IMAGE:
                    changed.data = changed.data[::-1].copy()  # both cameras of this bag show the same
                cdr = serialize(changed)
            writer.write(message.topic, message.msgtype, message.stamp_ns, cdr)
    found = examine_bag(tmp_path / "bag.mcap", load_config([], [f"model={tiny_model}"]), 30.0)
    (finding,) = [f for f in found if "is left out" in f.text]
    assert (finding.level, finding.subject) == ("warning", "front")
    assert finding.text.startswith(
        "/front/image_raw is left out: it has the frame of 'back', 'back_optical', and P of its camera_info"
    )
    assert finding.advice.startswith("set cameras.front.frame_id to its own frame")
    (said,) = [f.text for f in found if f.subject == "map"]
    assert said.startswith("6 map updates would be made")


def test_a_camera_that_is_sent_once_more_with_new_stamps(small_bag, tiny_model, tmp_path):
    """As a republisher does: its pictures are not those of a second camera."""
    with BagReader(small_bag) as reader, BagWriter(tmp_path / "bag.mcap") as writer:
        for message in reader.messages():
            writer.write(message.topic, message.msgtype, message.stamp_ns, message.cdr)
            if message.topic.startswith("/front"):
                late = message.stamp_ns + 30_000_000
                cdr = restamp(message.cdr, late)
                writer.write(f"/relayed{message.topic}", message.msgtype, late, cdr)
    config = load_config([], [f"model={tiny_model}", "map.size_xy_m=8"])
    (finding,) = [f for f in examine_bag(tmp_path / "bag.mcap", config, 30.0) if "is left out" in f.text]
    assert finding.text.endswith("its pictures are those of 'front', sent once more")
    maps = []
    for bag in (small_bag, tmp_path / "bag.mcap"):
        with BagReader(bag) as reader:
            result = play_bag(reader, plan_play(reader, config))
        maps.append((result.summary["keyframes"], result.view.probability.tobytes()))
    assert maps[0] == maps[1]
    (reason,) = result.summary["dropped"]
    assert reason.endswith(": has the frame of another camera")
