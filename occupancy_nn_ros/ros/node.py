# SPDX-License-Identifier: Apache-2.0
"""The live node: ROS topics in, maps out, with the same intake and session as the offline player.

A lifecycle node. Configuring loads and warms the model, activating subscribes, deactivating keeps model and map. One single-threaded
executor receives; one worker thread makes, owns and runs network and map.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.parameter import Parameter

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import ConfigError, OccupancyError
from occupancy_nn_ros.ros.context import NodeContext
from occupancy_nn_ros.ros.parameters import check_changes, declare_config
from occupancy_nn_ros.ros.publishers import OutputPublishers
from occupancy_nn_ros.ros.receiver import Receiver
from occupancy_nn_ros.ros.services import MapServices, path_inside
from occupancy_nn_ros.ros.watch import Watch
from occupancy_nn_ros.ros.worker import Worker
from occupancy_nn_ros.runtime.allocator import keep_freed_memory
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.intake import RawKeyframe
from occupancy_nn_ros.runtime.outputs import output_topics
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.session import MappingSession

DEFAULT_NAME = "occupancy_nn"
MAX_FAILED_CALLBACKS = 100
"""A callback that fails costs what it was called for; after so many of them something is broken for good."""

Transition = Callable[[State], TransitionCallbackReturn]


class OccupancyNode(LifecycleNode):  # type: ignore[misc]
    """Wires subscriptions, worker, publishers, services and watch together."""

    def __init__(self, start: Config | None = None, **arguments: Any) -> None:
        """Declare parameters.

        Args:
            start: defaults instead of the package's own.
            arguments: passed on to the ROS node.

        Raises:
            ConfigError: a parameter or config file cannot be used.
        """
        super().__init__(DEFAULT_NAME, **arguments)
        # rclpy's node has a property ``context`` of its own.
        self._shared = NodeContext(self, declare_config(self, start))
        self.autostart = bool(self.declare_parameter("autostart", True).value)
        self._map_folder = str(self.declare_parameter("map_folder", "maps").value)
        self._start_map = str(self.declare_parameter("start_map", "").value)
        self._receiver: Receiver | None = None
        self._outputs: OutputPublishers | None = None
        self._map_services: MapServices | None = None
        self._watch: Watch | None = None
        self.add_on_set_parameters_callback(self._on_parameters)

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Load and warm the model, make the map, offer topics and services."""
        return self._guarded("configure", self._configure, undo=self._free)

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Subscribe."""
        result = self._guarded("activate", self._activate, undo=self._deactivate)
        return super().on_activate(state) if result == TransitionCallbackReturn.SUCCESS else result

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Stop receiving; model and map stay."""
        super().on_deactivate(state)
        return self._guarded("deactivate", self._deactivate)

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Free model and map."""
        return self._guarded("clean up", self._free)

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Stop and free everything."""
        return self._guarded("shut down", self.close)

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """Return to a clean unconfigured state."""
        return self._guarded("recover", self.close)

    def start(self) -> bool:
        """Configure and activate at once; False if either failed, which was logged."""
        success = TransitionCallbackReturn.SUCCESS
        return bool(self.trigger_configure() == success and self.trigger_activate() == success)

    def close(self) -> None:
        """Stop receiving and free everything."""
        self._deactivate()
        self._free()

    def _configure(self) -> None:
        shared = self._shared
        shared.worker = Worker(self._process, self._on_worker_error)
        shared.session = shared.worker.ask(self._make_session).result()
        self._outputs = OutputPublishers(shared)
        self._map_services = MapServices(shared, self._outputs, self._map_folder)
        config = shared.config
        shared.log.info(f"ready: source {config.source}, model {config.model}, map frame {config.map_frame}")

    def _make_session(self) -> MappingSession:
        """Called in the worker's thread.

        OpenMP keeps a team of threads for each thread that calls it. Were the model warmed in another one, there would be
        more of them than cores, and they would sleep at each barrier: on two cores a keyframe took 700 ms, not 480 to 670.
        """
        session = MappingSession(self._shared.config, OccupancyPipeline(self._shared.config))
        session.warm_up()
        self._load_start_map(session)
        return session

    def _load_start_map(self, session: MappingSession) -> None:
        """Go on with a saved map. One that is not there is none yet: the first start must not differ from the others."""
        if not self._start_map:
            return
        path = path_inside(self._map_folder, self._start_map)
        if path.exists():
            session.load_map(path)
        self._shared.log.info(f"start map {path}: {'loaded' if path.exists() else 'not there yet, nothing is known'}")

    def _activate(self) -> None:
        outputs = self._outputs
        if self._shared.session is None or outputs is None:
            raise OccupancyError("the node is not configured")

        def offer_depths(sensors: Sequence[SensorStream]) -> None:
            outputs.add(output_topics(self._shared.config, sensors))

        self._receiver = Receiver(self._shared, self._offer, offer_depths)
        self._watch = Watch(self._shared, outputs, self._receiver)

    def _deactivate(self) -> None:
        for part in (self._watch, self._receiver):
            if part is not None:
                part.close()
        self._watch, self._receiver = None, None
        if self._shared.worker is not None and not self._shared.worker.drain():
            self._shared.log.error("a keyframe did not end within 30 s")

    def _free(self) -> None:
        if self._shared.worker is not None and not self._shared.worker.stop():
            self._shared.log.error("the worker did not stop within 30 s")
        for part in (self._map_services, self._outputs):
            if part is not None:
                part.close()
        self._shared.worker, self._shared.session = None, None
        self._map_services, self._outputs = None, None

    def _offer(self, keyframes: Sequence[RawKeyframe]) -> None:
        """Called in the executor's thread with keyframes that are ready."""
        if self._shared.worker is not None and not self._shared.is_paused:
            for keyframe in keyframes:
                self._shared.worker.offer(keyframe)

    def _process(self, raw: RawKeyframe) -> None:
        """Called in the worker's thread."""
        session, publishers, receiver = self._shared.session, self._outputs, self._receiver
        if session is None or publishers is None or receiver is None:
            return
        messages = session.process(raw, receiver.map_frame, publishers.wanted())
        publishers.publish(messages)
        total_s = max(0.0, (self._shared.now_ns() - raw.stamp_ns) * 1e-9)
        session.latency.add({"stamp_to_grid": total_s, "without_network": total_s - session.latency.newest("predict")})

    def _on_worker_error(self, error: BaseException) -> None:
        if not self.context.ok():  # asked to stop while a keyframe was worked on: its publishers are gone
            return
        text = "".join(traceback.format_exception(error))
        self._shared.log.error(f"a keyframe was lost: {text}", throttle_duration_sec=5.0)
        if self._shared.session is not None:
            self._shared.session.dropped["keyframe failed"] += 1

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        result, config = check_changes(self, self._shared.config, changes)
        if result.successful and config != self._shared.config:
            self._shared.config = config
            if self._receiver is not None:
                self._receiver.reconfigure(config)
            if self._shared.session is not None and self._shared.worker is not None:
                session = self._shared.session
                self._shared.worker.ask(lambda: session.reconfigure(config))
        return result

    def _guarded(
        self, what: str, body: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        """Run a transition, and undo what it did if it fails; rclpy swallows exceptions in them, so they are logged here."""
        try:
            body()
            return TransitionCallbackReturn.SUCCESS
        except OccupancyError as error:
            self._shared.log.error(f"cannot {what}: {error}")
            result = TransitionCallbackReturn.FAILURE
        except Exception:
            self._shared.log.error(f"cannot {what}: {traceback.format_exc()}")
            result = TransitionCallbackReturn.ERROR
        if undo is not None:
            undo()
        return result


def run_node(start: Config | None = None, arguments: Sequence[str] = ()) -> int:
    """Run the node until it is shut down; returns the exit code."""
    keep_freed_memory()
    rclpy.init(args=[*arguments])
    try:
        node = OccupancyNode(start)
    except ConfigError as error:
        sys.stderr.write(f"occupancy_node: {error}\n")
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if node.autostart and not node.start():
            return 1 if rclpy.ok() else 0  # asked to stop while still starting
        _spin(node, executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise
        # The signal came in the middle of a transition, which could not be told any more.
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _spin(node: OccupancyNode, executor: SingleThreadedExecutor) -> None:
    """Serve callbacks until the node is shut down; one that fails is logged and ends nothing."""
    failed = 0
    while rclpy.ok():
        try:
            executor.spin()
        except (KeyboardInterrupt, ExternalShutdownException):
            return
        except Exception:
            failed += 1
            if not rclpy.ok():  # the callback was running when the signal came, and found its publisher gone
                return
            if failed > MAX_FAILED_CALLBACKS:
                raise
            node.get_logger().error(f"a callback failed: {traceback.format_exc()}", throttle_duration_sec=5.0)


def main() -> None:
    """Entry point of ``ros2 run occupancy_nn_ros occupancy_node``."""
    sys.exit(run_node(None, sys.argv))
