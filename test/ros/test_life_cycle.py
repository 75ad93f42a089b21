# SPDX-License-Identifier: Apache-2.0
"""How the node starts, changes its settings, says how it is, and ends, over real DDS."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.typestore import deserialize

NODE = "/occupancy_nn"
MOMENTS = 5
"""Fifty, and twice the time, were tried by hand."""


@pytest.fixture
def status(graph):
    """The newest status and text of /diagnostics."""
    from occupancy_nn_ros.ros.qos import STATUS_QOS

    graph.listen(f"{NODE}/status", names.MAP_STATUS, STATUS_QOS)
    graph.listen("/diagnostics", names.DIAGNOSTIC_ARRAY, STATUS_QOS)

    def newest():
        states, texts = graph.received[f"{NODE}/status"], graph.received["/diagnostics"]
        if not states or not texts:
            return "", ""
        return (
            deserialize(names.MAP_STATUS, states[-1]).state,
            deserialize(names.DIAGNOSTIC_ARRAY, texts[-1]).status[0].message,
        )

    return newest


def go(graph, transition):
    from lifecycle_msgs.msg import Transition

    kind = Transition(id=getattr(Transition, f"TRANSITION_{transition.upper()}"))
    return graph.call(f"{NODE}/change_state", "lifecycle_msgs/srv/ChangeState", transition=kind).success


def set_parameter(graph, name, value):
    from rclpy.parameter import Parameter

    parameter = Parameter(name, value=value).to_parameter_msg()
    return graph.call(f"{NODE}/set_parameters", "rcl_interfaces/srv/SetParameters", parameters=[parameter]).results[0]


def run_node(*arguments):
    script = Path(__file__).parents[2] / "scripts" / "occupancy_node"
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=120)


def test_help_is_help_and_stray_words_are_refused():
    done = run_node("--help")
    assert done.returncode == 0 and "usage: occupancy_node" in done.stdout
    done = run_node("voxel_size_m:=0.1")
    assert done.returncode == 2 and "--ros-args -p NAME:=VALUE" in done.stderr


def test_a_parameter_file_that_is_none_is_said_in_one_line(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("voxel_size_m: 0.1")
    done = run_node("--ros-args", "--params-file", str(path))
    assert done.returncode == 2 and "Couldn't parse params file" in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_parameter_is_refused_with_the_nearest_name(tmp_path):
    done = run_node("--ros-args", "-p", "voxel_size:=0.1")
    assert done.returncode == 1 and "unknown parameter 'voxel_size', did you mean 'voxel_size_m'?" in done.stderr
    done = run_node("--ros-args", "-p", "front.image_topic:=/a")
    assert done.returncode == 1 and "camera 'front' is not in cameras" in done.stderr


def test_a_file_for_all_nodes_may_hold_what_this_one_lacks(graph, start_node, status, tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text("/**: {ros__parameters: {source: depth, voxel_size: 0.1, robot_radius: 0.3}}")
    node = start_node("--params-file", str(path), "-p", "autostart:=false")
    graph.until(lambda: status()[0] == "unconfigured")
    code, output = node.stop()
    assert code == 0 and "did you mean 'voxel_size_m'?" in output and "robot_radius" not in output


def test_settings_change_while_unconfigured_and_every_phase_is_told(graph, start_node, status):
    node = start_node("-p", "source:=depth", "-p", "autostart:=false", "-p", "cameras:=[front]")
    graph.until(lambda: status()[0] == "unconfigured")
    assert "ros2 lifecycle set NODE configure" in status()[1]
    assert set_parameter(graph, "voxel_size_m", 0.25).successful
    assert set_parameter(graph, "front.image_topic", "/depth/image").successful
    assert not set_parameter(graph, "map_folder", "/etc").successful
    assert go(graph, "configure")
    graph.until(lambda: status()[0] == "inactive")
    refused = set_parameter(graph, "voxel_size_m", 0.1)
    assert not refused.successful and "cleanup" in refused.reason
    assert not set_parameter(graph, "front.image_topic", "/other").successful
    assert go(graph, "activate")
    graph.until(lambda: "front.image_topic is /depth/image" in status()[1])
    assert go(graph, "deactivate") and go(graph, "cleanup")
    graph.until(lambda: status()[0] == "unconfigured")
    assert set_parameter(graph, "voxel_size_m", 0.1).successful
    code, output = node.stop()
    assert code == 0
    for phase in ("inactive: model and map are kept", "active: looking", "unconfigured: neither model nor map"):
        assert phase in output


def test_a_missing_clock_is_named_and_the_sensors_are_found_without_it(graph, start_node, status):
    from rosgraph_msgs.msg import Clock

    node = start_node("-p", "source:=depth", "-p", "use_sim_time:=true")
    graph.offer("/front/depth/image_raw", names.IMAGE)
    graph.offer("/front/depth/camera_info", names.CAMERA_INFO)
    graph.wait_for_node(["/front/depth/image_raw"])  # discovery runs on a clock of its own
    graph.until(lambda: "no message came on /clock (nobody publishes it)" in status()[1])
    clock = graph.node.create_publisher(Clock, "/clock", 10)
    for n in range(20):
        message = Clock()
        message.clock.sec = 100 + n
        clock.publish(message)
        graph.spin(0.2)
    graph.until(lambda: "no message on /front/depth/image_raw" in status()[1] or "stands still" in status()[1])
    graph.until(lambda: "/clock stands still at 119.000 s" in status()[1])
    assert node.stop()[0] == 0


def test_pause_is_not_silence_and_the_end_of_a_bag_is_said_once(graph, start_node, status, small_bag, tiny_model):
    node = start_node("-p", f"model:={tiny_model}", "-p", "map.size_xy_m:=8.0", "-p", "network.threads:=1")
    with BagReader(small_bag) as reader:
        messages = list(reader.messages())
    topics = {message.topic: message.msgtype for message in messages}
    for topic, msgtype in topics.items():
        graph.offer(topic, msgtype)
    graph.wait_for_node(topics)
    for message in messages:
        graph.publishers[message.topic].publish(message.cdr)
        graph.spin(0.01)
    graph.until(lambda: status()[0] == "mapping")
    assert graph.call(f"{NODE}/pause", "std_srvs/srv/Trigger").success
    graph.spin(6.0)
    assert status()[0] == "paused"
    assert graph.call(f"{NODE}/resume", "std_srvs/srv/Trigger").success
    graph.spin(2.0)
    assert "stopped" not in status()[1]
    graph.until(lambda: "stopped" in status()[1])
    graph.spin(12.0)
    code, output = node.stop()
    assert code == 0
    assert output.count("stopped") == 2  # one line, one word for each of two cameras


def blocks_signals(process):
    """Whether the script has come so far that it waits for signals; before that Python itself is starting."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (mask,) = [int(line.split()[1], 16) for line in lines if line.startswith("SigBlk")]
    return bool(mask & (1 << (signal.SIGINT - 1)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see when Python has started")
@pytest.mark.parametrize("moment", range(MOMENTS))
def test_signals_at_any_moment_end_it_cleanly(graph, start_node, tiny_model, moment):
    chance = random.Random(moment)
    node = start_node("-p", f"model:={tiny_model}")
    graph.until(lambda: blocks_signals(node.process))
    time.sleep(chance.uniform(0.0, 2.0 * moment))
    sent = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    for _ in range(2):
        if node.process.poll() is None:
            node.process.send_signal(chance.choice(sent))
        time.sleep(chance.uniform(0.0, 0.2))
    code, output = node.stop()
    assert code == 0, output
    assert "Traceback" not in output and "terminate called" not in output and "had to be killed" not in output
