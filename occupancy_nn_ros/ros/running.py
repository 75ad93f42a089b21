# SPDX-License-Identifier: Apache-2.0
"""The process around the node: arguments, start, executor, and an end within seconds of any signal."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rclpy.utilities import remove_ros_args

from occupancy_nn_ros.errors import OccupancyError
from occupancy_nn_ros.ros.node import OccupancyNode
from occupancy_nn_ros.ros.overrides import lenient_names
from occupancy_nn_ros.ros.parameters import StartSettings
from occupancy_nn_ros.ros.stop_signals import StopSignals, leave
from occupancy_nn_ros.runtime.allocator import keep_freed_memory
from occupancy_nn_ros.visualization.snapshot import Viewer

MAX_FAILED_CALLBACKS = 100
"""A callback that fails costs what it was called for; after so many of them something is broken for good."""
QUIT_S = 1.5
"""How long the end waits for a keyframe or a start that is being worked on."""

HELP = """usage: occupancy_node [--help] [--ros-args -p NAME:=VALUE ... --params-file FILE -r FROM:=TO ...]

A live 3D occupancy map from camera images and TF. With no cameras named it finds them in the graph.

  -p cameras:="[front, rear]"               names of the cameras; each has settings of its own:
  -p front.image_topic:=/front/image_raw    relative and remapped names work
  -p config_files:=robot.yaml               settings from files, comma separated; -p wins over them
  -p map_frame:=odom -p base_frame:=base_link -p voxel_size_m:=0.1 -p model:=nano
  -p autostart:=false                       wait for a lifecycle manager or `ros2 lifecycle set`
  -p map_folder:=maps -p start_map:=kitchen.safetensors

`ros2 param describe /occupancy_nn NAME` and docs/parameters.md tell what each setting means.
"""


def main(stop: StopSignals) -> None:
    """Entry point of ``ros2 run occupancy_nn_ros occupancy_node``."""
    try:
        words = remove_ros_args(sys.argv)[1:]
    except Exception as error:  # rclpy keeps its class to itself; a --params-file that is none is the usual case
        sys.stderr.write(f"occupancy_node: {error}\n")
        sys.exit(2)
    if {"-h", "--help"} & set(words):
        print(HELP, end="")  # noqa: T201
        sys.exit(0)
    if words:
        sys.stderr.write(f"occupancy_node: unexpected '{words[0]}'; a setting is given as --ros-args -p NAME:=VALUE\n")
        sys.exit(2)
    run_node(None, sys.argv, stop)


def run_node(
    start: StartSettings | None,
    arguments: Sequence[str],
    stop: StopSignals,
    viewers: tuple[Viewer, ...] = (),
    at_end: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Run the node until it is shut down, and end the process.

    Args:
        start: what the command line says.
        arguments: ``--ros-args`` and what follows.
        stop: waits for signals.
        viewers: are shown each keyframe.
        at_end: called before the process ends, however the node ended.
    """
    ended = Future()
    stop.call(lambda: _end(ended, 0))
    keep_freed_memory()
    rclpy.init(args=[*arguments], signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = OccupancyNode(start, stop.requested, lenient_names(arguments), viewers)
    except OccupancyError as error:
        sys.stderr.write(f"occupancy_node: {error}\n")
        rclpy.try_shutdown()
        at_end()
        leave(1)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    starter = threading.Thread(target=_start, args=(node, ended), name="starter", daemon=True)
    if node.autostart:
        starter.start()
    try:
        _spin(node, executor, ended)
    finally:
        _close(node, starter)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
        at_end()
    leave(int(ended.result() or 0) if ended.done() else 0)


def _end(ended: Future, code: int) -> None:
    if not ended.done():
        ended.set_result(code)


def _start(node: OccupancyNode, ended: Future) -> None:
    """Configure and activate beside the executor, which meanwhile answers `ros2 lifecycle get` and sends the status."""
    try:
        if not node.start():
            _end(ended, 1)
    except Exception:
        if not ended.done():
            node.get_logger().error(f"cannot start: {traceback.format_exc()}")
        _end(ended, 1)


def _spin(node: OccupancyNode, executor: SingleThreadedExecutor, ended: Future) -> None:
    """Serve callbacks until the end; one that fails is logged and ends nothing."""
    failed = 0
    while rclpy.ok() and not ended.done():
        try:
            executor.spin_until_future_complete(ended)
        except ExternalShutdownException:
            return
        except Exception:
            failed += 1
            if failed > MAX_FAILED_CALLBACKS:
                raise
            node.get_logger().error(f"a callback failed: {traceback.format_exc()}", throttle_duration_sec=5.0)


def _close(node: OccupancyNode, starter: threading.Thread) -> None:
    """Free what the node holds, unless a thread still works with it."""
    if starter.is_alive():
        starter.join(QUIT_S)
    if not starter.is_alive():
        node.close(QUIT_S)
