# SPDX-License-Identifier: Apache-2.0
"""Damaged recordings in the player and the doctor: what can be read is mapped, and what is missing is said."""

import json

import pytest
from mcap.writer import Writer as McapWriter

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.cli.main import main


@pytest.fixture
def copied(small_bag, tmp_path):
    """The small bag as another program writes it, in many chunks, with a topic in protobuf."""
    path = tmp_path / "copied.mcap"
    with path.open("wb") as file, BagReader(small_bag) as reader:
        writer, channels = McapWriter(file, chunk_size=100_000), {}
        writer.start(profile="", library="another")
        odd = writer.register_channel("/odd", "protobuf", writer.register_schema("odd.Thing", "protobuf", b"x"))
        for message in reader.messages():
            if message.topic not in channels:
                schema = writer.register_schema(message.msgtype, "ros2msg", b"")
                channels[message.topic] = writer.register_channel(message.topic, "cdr", schema)
            writer.add_message(channels[message.topic], message.stamp_ns, message.cdr, message.stamp_ns)
            writer.add_message(odd, message.stamp_ns, b"?", message.stamp_ns)
        writer.finish()
    return path


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, json.loads(capsys.readouterr().out)


def test_a_recording_cut_by_power_loss_is_mapped_as_far_as_it_goes(copied, tiny_model, tmp_path, capsys):
    whole = copied.read_bytes()
    _, summary = run(capsys, "play", copied, "--model", tiny_model, "--out", tmp_path / "out", "--json")
    assert summary["keyframes"] == 6
    copied.write_bytes(whole[: len(whole) * 6 // 10])
    code, summary = run(capsys, "play", copied, "--model", tiny_model, "--out", tmp_path / "out", "--json")
    assert (code, 2 <= summary["keyframes"] <= 4) == (0, True)
    code, report = run(capsys, "doctor", copied, "--model", tiny_model, "--json")
    assert code == 0
    texts = [check["text"] for check in report["checks"] if check["level"] == "warning"]
    assert any("copied.mcap is cut off or damaged after 0." in text for text in texts)
    assert "/odd cannot be read: is encoded as 'protobuf', expected cdr or ros1" in texts


def test_the_player_says_what_it_could_not_read(copied, tiny_model, tmp_path, capsys):
    assert main(["play", str(copied), "--model", str(tiny_model), "--out", str(tmp_path / "out")]) == 0
    assert "bag: /odd cannot be read: is encoded as 'protobuf'" in capsys.readouterr().out


def test_a_bag_beyond_reading_is_a_problem_with_the_right_tool(tmp_path, tiny_model, capsys):
    for name, content, tool in (
        ("x.db3", b"SQLite format 3\0" + bytes(100), "sqlite3 OLD.db3 .recover"),
        ("x.mcap", b"\x89MCAP0\r\n" + bytes(9), "mcap recover"),
    ):
        (tmp_path / name).write_bytes(content)
        code, report = run(capsys, "doctor", tmp_path / name, "--model", tiny_model, "--json")
        (check,) = [check for check in report["checks"] if check["level"] == "problem"]
        assert (code, check["subject"], tool in check["advice"]) == (1, "bag", True)
