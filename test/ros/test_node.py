# SPDX-License-Identifier: Apache-2.0
"""The live node over real DDS: discovery, services, parameters, what it says when something is missing, and how it ends."""

import importlib.util
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.sensors import encode_image
from occupancy_nn_ros.messages.typestore import deserialize

NODE = "/occupancy_nn"


@pytest.fixture
def arguments(tiny_model, tmp_path):
    settings = {"model": tiny_model, "map.size_xy_m": 8.0, "network.threads": 1, "map_folder": tmp_path / "maps"}
    return [part for key, value in settings.items() for part in ("-p", f"{key}:={value}")]


def offer_all(graph, bag):
    with BagReader(bag) as reader:
        topics = {topic: info.msgtype for topic, info in reader.topics.items()}
        for topic, msgtype in topics.items():
            graph.offer(topic, msgtype)
        graph.wait_for_node(topics)
        return list(reader.messages())


def publish(graph, messages, pause_s=0.005):
    for message in messages:
        graph.publishers[message.topic].publish(message.cdr)
        graph.spin(pause_s)


def status(graph):
    return deserialize(names.MAP_STATUS, graph.received[f"{NODE}/status"][-1])


def listen_status(graph):
    from occupancy_nn_ros.ros.qos import STATUS_QOS

    graph.listen(f"{NODE}/status", names.MAP_STATUS, STATUS_QOS)
    graph.listen("/diagnostics", names.DIAGNOSTIC_ARRAY, STATUS_QOS)


def wait_for_keyframes(graph, count):
    graph.until(lambda: graph.received[f"{NODE}/status"] and status(graph).keyframes >= count)


def check_lost_folders(graph, folder):
    """A folder of maps that is gone is made anew; where none can be written, the answer says so, whatever is saved."""

    def save(name):
        return graph.call(f"{NODE}/save_map", "occupancy_nn_ros/srv/SaveMap", file_path=name)

    kept = (folder / "kitchen.safetensors").read_bytes()
    shutil.rmtree(folder)
    assert save("again.safetensors").success and (folder / "again.safetensors").stat().st_size > 10_000
    shutil.rmtree(folder)
    folder.write_text("a file now")
    for name in ("lost.safetensors", "lost.ply"):
        lost = save(name)
        assert not lost.success and "lost" in lost.message
    folder.unlink()
    folder.mkdir(mode=0o500)
    if os.geteuid():  # the superuser may write everywhere
        assert not save("lost.safetensors").success
    folder.chmod(0o700)
    (folder / "kitchen.safetensors").write_bytes(kept)


def test_services_status_and_diagnostics(graph, start_node, small_bag, arguments, tmp_path):
    node = start_node(*arguments)
    listen_status(graph)
    publish(graph, offer_all(graph, small_bag))
    wait_for_keyframes(graph, 1)
    report = status(graph)
    assert list(report.camera_names) == ["back", "front"]
    assert (
        6 <= report.frames_received.min() <= report.frames_received.max() <= 12
    )  # best effort: a busy machine loses some
    assert {"decode", "predict", "integrate", "total", "stamp_to_grid"} <= set(report.stages)
    diagnostics = deserialize(names.DIAGNOSTIC_ARRAY, graph.received["/diagnostics"][-1])
    assert diagnostics.status[0].name.startswith("occupancy_nn")

    from geometry_msgs.msg import Point

    points = [Point(x=0.5, y=0.0, z=0.5), Point(x=900.0, y=0.0, z=0.0)]
    answer = graph.call(
        f"{NODE}/query_occupancy", "occupancy_nn_ros/srv/QueryOccupancy", points=points, interpolate=False
    )
    assert answer.success and answer.frame_id == "odom"
    assert list(answer.state)[1] == -1 and np.isnan(answer.probability[1])

    saved = graph.call(f"{NODE}/save_map", "occupancy_nn_ros/srv/SaveMap", file_path="kitchen.safetensors")
    assert saved.success, saved.message
    assert (tmp_path / "maps" / "kitchen.safetensors").stat().st_size > 10_000
    for name, beginning in (("kitchen.bt", b"# Octomap OcTree binary file"), ("kitchen.ply", b"ply\nformat binary")):
        if name.endswith(".bt") or importlib.util.find_spec("skimage"):
            saved = graph.call(f"{NODE}/save_map", "occupancy_nn_ros/srv/SaveMap", file_path=name)
            assert saved.success, saved.message
            assert (tmp_path / "maps" / name).read_bytes().startswith(beginning)
    outside = graph.call(f"{NODE}/save_map", "occupancy_nn_ros/srv/SaveMap", file_path="../outside.safetensors")
    assert not outside.success and "not a file inside the map folder" in outside.message
    assert not (tmp_path / "outside.safetensors").exists()
    missing = graph.call(f"{NODE}/load_map", "occupancy_nn_ros/srv/LoadMap", file_path="nothing.safetensors")
    assert not missing.success and "cannot read map" in missing.message

    check_lost_folders(graph, tmp_path / "maps")
    assert graph.call(f"{NODE}/clear", "std_srvs/srv/Trigger").success
    cleared = graph.call(f"{NODE}/query_occupancy", "occupancy_nn_ros/srv/QueryOccupancy", points=points)
    assert list(cleared.state) == [-1, -1]
    loaded = graph.call(f"{NODE}/load_map", "occupancy_nn_ros/srv/LoadMap", file_path="kitchen.safetensors")
    assert loaded.success, loaded.message
    again = graph.call(f"{NODE}/query_occupancy", "occupancy_nn_ros/srv/QueryOccupancy", points=points)
    assert list(again.state) == list(answer.state)

    assert graph.call(f"{NODE}/pause", "std_srvs/srv/Trigger").success
    graph.until(lambda: status(graph).state == "paused")
    assert graph.call(f"{NODE}/resume", "std_srvs/srv/Trigger").success
    assert node.stop()[0] == 0


def test_a_box_in_any_frame_is_cleared(graph, start_node, small_bag, arguments):
    from geometry_msgs.msg import Point, PoseStamped, Vector3

    def clear(frame, center, size):
        pose = PoseStamped()
        pose.header.frame_id = frame
        pose.pose.position = Point(**dict(zip("xyz", center, strict=True)))
        size = Vector3(**dict(zip("xyz", size, strict=True)))
        return graph.call(f"{NODE}/clear_box", "occupancy_nn_ros/srv/ClearBox", pose=pose, size=size)

    def known():
        at = [
            Point(x=x, y=y, z=z) for x in np.arange(-3.9, 4, 0.2) for y in np.arange(-3.9, 4, 0.2) for z in (0.1, 0.5)
        ]
        answer = graph.call(f"{NODE}/query_occupancy", "occupancy_nn_ros/srv/QueryOccupancy", points=at)
        return {(p.x, p.y, p.z) for p, state in zip(at, answer.state, strict=True) if state != -1}

    start_node(*arguments)
    listen_status(graph)
    publish(graph, offer_all(graph, small_bag))
    wait_for_keyframes(graph, 3)
    assert graph.call(f"{NODE}/pause", "std_srvs/srv/Trigger").success
    before = known()
    assert len(before) > 200
    half = clear("odom", (2.0, 0.0, 0.0), (4.0, 20.0, 20.0))
    after = known()
    assert half.success and half.cleared > 100, half.message
    assert after == {p for p in before if not 0 < p[0] < 4} and len(after) < len(before)
    robot = clear("base_link", (0.0, 0.0, 0.0), (40.0, 40.0, 40.0))
    assert robot.success and robot.cleared > 0 and not known(), robot.message
    lost = clear("arm", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert not lost.success and "no transform from 'arm' to 'odom'" in lost.message
    flat = clear("", (0.0, 0.0, 0.0), (1.0, 1.0, 0.0))
    assert not flat.success and "expected three positive lengths" in flat.message


def test_parameters_change_live_or_are_refused_with_the_reason(graph, start_node, arguments):
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue

    start_node(*arguments)

    def change(name, **value):
        kind = {"double_value": ParameterType.PARAMETER_DOUBLE, "string_value": ParameterType.PARAMETER_STRING}[
            next(iter(value))
        ]
        parameter = Parameter(name=name, value=ParameterValue(type=kind, **value))
        return graph.call(f"{NODE}/set_parameters", "rcl_interfaces/srv/SetParameters", parameters=[parameter]).results[
            0
        ]

    assert change("map.occupied_probability", double_value=0.7).successful
    assert not change("map.occupied_probability", double_value=1.7).successful
    fixed = change("voxel_size_m", double_value=0.1)
    assert not fixed.successful and fixed.reason
    values = graph.call(
        f"{NODE}/get_parameters", "rcl_interfaces/srv/GetParameters", names=["map.occupied_probability", "voxel_size_m"]
    )
    assert [v.double_value for v in values.values] == [0.7, 0.2]
    described = graph.call(
        f"{NODE}/describe_parameters", "rcl_interfaces/srv/DescribeParameters", names=["map.occupied_probability"]
    )
    (descriptor,) = described.descriptors
    assert descriptor.floating_point_range[0].to_value == pytest.approx(0.99)
    assert "occupied" in descriptor.description


def test_named_cameras_use_their_topics_frames_and_offsets(graph, start_node, small_bag, arguments):
    start_node(
        *arguments, "-p", "cameras:=[one]", "-p", "one.image_topic:=/front/image_raw", "-p", "one.time_offset_s:=0.01"
    )
    listen_status(graph)
    with BagReader(small_bag) as reader:
        messages = [m for m in reader.messages() if not m.topic.startswith("/back")]
        topics = {m.topic: m.msgtype for m in messages}
    for topic, msgtype in topics.items():
        graph.offer(topic, msgtype)
    graph.wait_for_node(topics)
    publish(graph, messages)
    wait_for_keyframes(graph, 1)
    assert list(status(graph).camera_names) == ["one"]


def test_it_says_what_it_waits_for(graph, start_node, small_bag, arguments):
    """First no camera at all, then pictures without camera_info."""
    node = start_node(*arguments)
    listen_status(graph)
    graph.until(lambda: graph.received[f"{NODE}/status"] and status(graph).state == "waiting")
    graph.spin(6.0)
    graph.offer("/front/image_raw", names.IMAGE)
    graph.wait_for_node(["/front/image_raw"])
    for n in range(8):
        graph.publishers["/front/image_raw"].publish(
            encode_image(10**18 + n, "front_optical", np.zeros((12, 16, 3), np.uint8))
        )
        graph.spin(1.0)
    code, output = node.stop()
    assert code == 0
    assert "no camera topics found; candidates: none" in output
    assert "no camera_info on /front/camera_info (front)" in output


def test_bad_messages_cost_themselves_and_the_node_goes_on(graph, start_node, small_bag, arguments):
    node = start_node(*arguments)
    listen_status(graph)
    messages = offer_all(graph, small_bag)
    half = len(messages) // 2
    publish(graph, messages[:half])
    image = next(m.cdr for m in messages if m.topic == "/front/image_raw")
    liar = bytearray(image)
    liar[12:16] = (2**31).to_bytes(4, "little")  # the frame_id claims two gigabytes
    for junk in (image[:60], bytes(liar), b"", b"\x00\x01\x00\x00", image[:8] + b"\xff" * 40):
        graph.publishers["/front/image_raw"].publish(junk) if junk else None
    graph.publishers["/tf"].publish(b"\x00\x01\x00\x00\xff\xff\xff\xff")
    graph.publishers["/front/camera_info"].publish(b"\x00\x01\x00\x00" + b"\x01" * 30)
    publish(graph, messages[half:])
    wait_for_keyframes(graph, 3)
    graph.until(lambda: any("does not decode" in reason for reason in status(graph).drop_reasons))
    reasons = dict(zip(status(graph).drop_reasons, status(graph).drop_counts, strict=True))
    assert reasons["/tf: message does not decode"] == 1
    assert node.stop()[0] == 0


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        (["-p", "model:=no_such_model"], "no model named 'no_such_model'"),
        (["-p", "voxel_size_m:=-1.0"], "voxel_size_m"),
        (["-p", "max_memory_mib:=256"], "max_memory_mib is 256, but at least"),
        (["-p", "config_files:=/nowhere.yaml"], "cannot read settings from /nowhere.yaml"),
    ],
)
def test_a_node_that_cannot_work_says_why_and_fails(graph, start_node, arguments, bad, line):
    node = start_node(*arguments, *bad)
    graph.until(lambda: node.process.poll() is not None)
    code, output = node.stop()
    assert code != 0
    assert line in output
    assert "Traceback" not in output


def small_computer():
    resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def test_the_shipped_model_on_one_core_in_two_gibibytes(graph, start_node, small_bag):
    node = start_node("-p", "max_memory_mib:=2048", "-p", "map.remember_mib:=4000", limit=small_computer)
    listen_status(graph)
    publish(graph, offer_all(graph, small_bag))
    wait_for_keyframes(graph, 2)
    text = Path(f"/proc/{node.process.pid}/status").read_text()
    peak_mib = next(int(line.split()[1]) >> 10 for line in text.splitlines() if line.startswith("VmHWM"))
    assert peak_mib < 1024
    code, output = node.stop()
    assert code == 0, output
    assert "memory: at most" in output
    assert "to keep within max_memory_mib, map.remember_mib is" in output


def test_two_robots_in_two_namespaces(graph, start_node, arguments):
    nodes = [start_node(*arguments, namespace=f"/robot{n}") for n in (1, 2)]
    grids = {f"/robot{n}/occupancy_nn/occupancy_grid" for n in (1, 2)}
    graph.until(lambda: grids <= dict(graph.node.get_topic_names_and_types()).keys())
    ends = [node.stop() for node in nodes]
    assert [code for code, _ in ends] == [0, 0], ends[0][1] + ends[1][1]


def go(graph, transition):
    from lifecycle_msgs.msg import Transition

    kind = Transition(id=transition)
    return graph.call(f"{NODE}/change_state", "lifecycle_msgs/srv/ChangeState", transition=kind).success


def lifecycle_state(graph):
    return graph.call(f"{NODE}/get_state", "lifecycle_msgs/srv/GetState").current_state.id


def test_lifecycle_can_be_driven_from_outside(graph, start_node, arguments):
    node = start_node(*arguments, "-p", "autostart:=false")
    from lifecycle_msgs.msg import State, Transition

    assert lifecycle_state(graph) == State.PRIMARY_STATE_UNCONFIGURED
    for _ in range(2):
        assert go(graph, Transition.TRANSITION_CONFIGURE) and lifecycle_state(graph) == State.PRIMARY_STATE_INACTIVE
        assert go(graph, Transition.TRANSITION_ACTIVATE) and lifecycle_state(graph) == State.PRIMARY_STATE_ACTIVE
        assert go(graph, Transition.TRANSITION_DEACTIVATE) and go(graph, Transition.TRANSITION_CLEANUP)
    assert lifecycle_state(graph) == State.PRIMARY_STATE_UNCONFIGURED
    assert node.stop(signal.SIGINT)[0] == 0


def test_a_node_that_is_being_configured_from_outside_answers_and_sends_its_status(graph, start_node, arguments):
    from lifecycle_msgs.msg import State, Transition
    from lifecycle_msgs.srv import ChangeState, GetState

    from occupancy_nn_ros.ros.qos import STATUS_QOS

    start_node(*arguments, "-p", "autostart:=false")
    assert lifecycle_state(graph) == State.PRIMARY_STATE_UNCONFIGURED
    graph.listen(f"{NODE}/status", names.MAP_STATUS, STATUS_QOS)
    change = graph.node.create_client(ChangeState, f"{NODE}/change_state")
    graph.until(lambda: change.service_is_ready() and graph.received[f"{NODE}/status"])
    asked = GetState.Request()
    configured = change.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
    answers = []
    while not configured.done():
        answer = graph.clients[f"{NODE}/get_state"].call_async(asked)
        graph.until(lambda: answer.done() or configured.done())  # noqa: B023
        answers += [answer.result().current_state.id] if answer.done() else []
    assert configured.result().success
    assert State.TRANSITION_STATE_CONFIGURING in answers
    states = {deserialize(names.MAP_STATUS, cdr).state for cdr in graph.received[f"{NODE}/status"]}
    assert "configuring" in states
    assert not go(graph, Transition.TRANSITION_CONFIGURE)  # it is configured: refused, and answered


def test_the_command_line_wins_over_files_and_what_is_fixed_stays(graph, tmp_path, tiny_model):
    """``occupancy-nn live`` with a settings file and single settings, and a file among the parameters."""
    from rcl_interfaces.msg import Parameter, ParameterValue

    for name, text in {
        "a.yaml": "voxel_size_m: 0.5\ngrid: {min_height_m: 0.3}",
        "b.yaml": "voxel_size_m: 0.4\nkeyframes: {distance_m: 0.2}",
    }.items():
        (tmp_path / name).write_text(text)
    code = "import sys; from occupancy_nn_ros.cli.main import main; sys.exit(main())"
    options = ["--config", str(tmp_path / "a.yaml"), "--set", "keyframes.distance_m=0.7", "--source", "depth"]
    ros = ["-p", f"config_files:={tmp_path / 'b.yaml'}", "-p", "autostart:=false", "-p", "keyframes.angle_rad:=0.9"]
    process = subprocess.Popen([sys.executable, "-c", code, "live", *options, "--ros-args", *ros])
    try:
        asked = ["voxel_size_m", "grid.min_height_m", "keyframes.distance_m", "keyframes.angle_rad"]
        values = graph.call(
            f"{NODE}/get_parameters", "rcl_interfaces/srv/GetParameters", names=[*asked, "source"]
        ).values
        assert [value.double_value for value in values[:4]] == [0.4, 0.3, 0.7, 0.9]
        assert values[4].string_value == "depth"
        fixed = [
            Parameter(name=name, value=ParameterValue(type=4, string_value="/tmp"))
            for name in ("map_folder", "start_map")
        ]
        results = graph.call(f"{NODE}/set_parameters", "rcl_interfaces/srv/SetParameters", parameters=fixed).results
        assert [result.successful for result in results] == [False, False]
    finally:
        process.terminate()
        process.wait(30)


def test_a_failed_configure_leaves_nothing_behind(graph, start_node, arguments, tmp_path):
    from lifecycle_msgs.msg import State, Transition

    (tmp_path / "room.safetensors").write_bytes(b"no map")
    settings = ["autostart:=false", f"map_folder:={tmp_path}", "start_map:=room.safetensors"]
    node = start_node(*arguments, *(part for setting in settings for part in ("-p", setting)))

    def grids():
        return graph.node.count_publishers(f"{NODE}/occupancy_grid")

    assert not go(graph, Transition.TRANSITION_CONFIGURE)
    assert lifecycle_state(graph) == State.PRIMARY_STATE_UNCONFIGURED and grids() == 0

    (tmp_path / "room.safetensors").unlink()
    assert go(graph, Transition.TRANSITION_CONFIGURE)
    graph.until(lambda: grids() == 1)
    code, output = node.stop(signal.SIGINT)
    assert code == 0 and "cannot configure" in output and "Traceback" not in output
